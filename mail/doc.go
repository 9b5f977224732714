// Package mail tells people what happens to their accounts: the messages and their
// templates, the ways to send them, and an outbox in MongoDB that sends each of them
// once, whichever instance is alive.
//
// [Message] has one recipient and no header that its author could not mean:
// [Message.Validate] refuses lists, display names of recipients, line breaks and second
// "@" (ASVS 5.0, 1.3.11). A [Mailer] hands it on: [SMTP] to a server, [Log] to a logger
// for development, or one of the service's own.
//
// [Outbox] keeps intents and no mails. What is at rest says whom to tell what; links and
// codes are made when the message is composed, at each attempt, so no secret is stored.
package mail
