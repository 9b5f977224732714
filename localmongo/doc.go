// Package localmongo is an in-process MongoDB for development and tests: a
// [Server] that speaks MongoDB's wire protocol to the official driver, over a
// pipe inside the process or, on request, a loopback listener.
//
// It only translates. The data and its rules (matching, updates, unique,
// partial and TTL indexes) belong to github.com/256dpi/lungo, and every line of
// code above the driver runs unchanged.
//
// It is not for production: finds scan, each write copies the collection's
// index, and there is one writer at a time. It says so once when it starts.
// Load figures count on a real server only.
//
// # What it speaks
//
// OP_MSG with document sequences and checksums, and OP_QUERY for the first
// hello. Commands: hello, isMaster, ping, buildInfo, insert, find, getMore, killCursors, update (operators,
// replacement, multi, upsert, array filters), delete, findAndModify, count,
// distinct, aggregate ($match, $sort, $skip, $limit, $project, the group that
// CountDocuments sends, and $changeStream), create, drop, dropDatabase,
// createIndexes, listIndexes, dropIndexes, listCollections, listDatabases,
// endSessions. Documents of up to 16 MiB, messages of up to 48,000,000 bytes.
//
// Update operators: those of lungo ($set, $setOnInsert, $unset, $rename, $inc,
// $mul, $max, $min, $pop) and, of this package, $push with $each, $sort, $slice
// and $position, $pull, $pullAll, $addToSet and $currentDate with $type.
//
// # What it refuses
//
// With MongoDB's own codes: transactions (20), other commands (59), other
// pipeline stages (40324), updates given as pipelines, $regex, $expr, $where,
// text and geospatial search, positional $ (9 or 2), collation, hint and every
// other option it does not honour (40415), compressed messages. Differences
// that remain: $ne on a field that holds an array compares element by element,
// projections know only inclusion, exclusion and $slice, and sessions are
// accepted and mean nothing.
package localmongo
