// Package audit keeps the audit trail of an app: every security event as one
// record, in MongoDB, for as long as the app retains it, chained so that a change
// of what is stored is found.
//
// A [Trail] is an [event.Sink]. Records are written once each: their identifiers
// are fixed before the first attempt, so that a write whose answer was lost is
// recognised when it is repeated. A trail that is synchronous answers once a record
// is stored; the others queue it and write in batches. What does not fit into the
// queue is counted, logged and, as soon as there is room, recorded itself
// ([event.AuditLost]).
//
// # Chains
//
// A tamper-evident trail writes one chain per instance, so that instances need
// nothing of one another. Each record of a chain holds its number, the MAC of its
// predecessor, and its own HMAC over a canonical form of all that is stored of it.
// The key is derived from the service's secret and is not in the database. Besides:
//
//   - Each record also signs when its predecessor expires. Expiry never falls along
//     a chain, so a record whose predecessor is missing proves whether retention
//     may have taken everything before it. Every record is thereby a checkpoint for
//     the cut, and none has to be written when the cut moves.
//   - Each chain has a signed head in the same collection: how far it goes, with
//     which MAC, and whether it ended in order. It is there before the first record,
//     renewed within a second of new records and on Flush, Checkpoint and Close, and
//     outlives the records by a day.
//   - The first record of a chain ([event.AuditStarted]), and one more every hour in
//     which other chains have grown ([event.AuditCheckpoint]), repeats and signs the
//     newest heads of the app's other chains: it witnesses them. Heads from a
//     [Report] can be kept outside of the database and given to [Trail.Verify] later,
//     where they do the same.
//
// # What an attacker can do
//
// Somebody who can write to the database and does not have the secret cannot, without
// that [Trail.Verify] finds it: change a record or any field of it; add one to a
// chain; move one within its chain, to another chain or another app; remove one
// that has not expired, from the middle, the beginning or (see below) the end of a
// chain; shorten the life of one; remove a chain. A record outside of any chain is
// possible, and counted as such by Verify.
//
// They can, unnoticed:
//
//   - remove the newest records of a chain that were not yet covered by its head,
//     which are those of the last second before a crash: an instance that lives on
//     writes the next record after the missing ones and a head that names it;
//   - put the head and the records of a chain back to an earlier state, if its instance
//     has died and no chain has witnessed it since. Witnesses make that the last hour
//     where several instances run, and the time between a crash and the next start
//     where there is one; heads kept outside end it. Putting the whole app back, all
//     chains at once, is found by such heads only;
//   - read: nothing is encrypted, and no secret is in it;
//   - stop the trail, by taking the database away. Events are then counted as lost.
//
// Somebody who has the secret, or runs code in the service, can write any chain.
// Records within five minutes of their expiry may be missing in any case: the
// database removes them by its own clock.
//
// What is recorded follows the chapter V16 of OWASP ASVS 5.0: who, what, when, from
// where and how it ended, in one form, with the time in UTC; no secrets (V16.2.5); no
// control characters, so that no entry can be forged (V16.4.1); kept so that changes
// are found (V16.4.2).
package audit
