// Package localmongo is an in-process MongoDB for development and tests: a
// [Server] that speaks MongoDB's wire protocol to the official driver, over a
// pipe inside the process or, on request, a loopback listener.
//
// It translates commands; documents, comparison, matching, updates and indexes
// are those of github.com/256dpi/lungo. Every line of code above the driver runs
// unchanged, on this or on a server.
//
// It is not for production: finds scan, each write copies the list of its
// collection, and there is one writer at a time. It says so once when it
// starts. Load figures count on a real server only.
//
// # What it speaks
//
// OP_MSG with document sequences and checksums, and OP_QUERY for the first
// hello. It presents itself as a stand-alone server of wire version 17.
//
//   - Commands: hello, isMaster, ping, buildInfo, insert, find, getMore,
//     killCursors, update (operators, replacement, multi, upsert, array filters),
//     delete, findAndModify, count, distinct, aggregate, create, drop,
//     dropDatabase, createIndexes, listIndexes, dropIndexes, listCollections,
//     listDatabases, endSessions.
//   - Stages: $match, $sort, $skip, $limit, $project, the $group that
//     CountDocuments sends, and $changeStream, which $match may follow.
//   - Filters: $and, $or, $nor, $eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $not,
//     $exists, $type, $size, $all, $elemMatch.
//   - Updates: $set, $setOnInsert, $unset, $rename, $inc, $mul, $max, $min, $pop,
//     $currentDate, $addToSet, $pull, $pullAll, and $push with $each, $sort,
//     $slice and $position.
//   - Projections: inclusion, exclusion and $slice, into arrays as well.
//   - Indexes: ascending and descending, compound, unique, partial, TTL.
//   - Limits: 48,000,000 bytes and 4,000,000 fields a message, 16 MiB and 180
//     levels a document.
//
// # What it refuses
//
// With MongoDB's own codes, and also where no document would come to it:
// transactions (20), other commands (59), other pipeline stages (40324), other
// update operators and updates given as pipelines (9), other query operators,
// among them $regex, $expr and $where, positional $ and code or key bounds as
// values (2), collation, hint and every other option that it does not honour
// (40415). Compressed messages end the connection.
//
// # What differs
//
//   - Sessions, write concern, read concern and causal consistency are accepted
//     and mean nothing; there are no retryable writes.
//   - A change stream reads a history of at least 4,096 events, which does not
//     outlive the process; a position beyond it fails with 286. updateLookup
//     delivers the document as the update left it.
//   - Unique indexes and sorts take an array as one value, and $type and $size do
//     not look into the elements of an array.
//   - Expired documents go within about a second.
//   - An update of many that fails changes none of them.
//   - Two indexes may not have the same keys, even with other partial filters.
package localmongo
