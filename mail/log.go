package mail

import (
	"context"
	"log/slog"
)

// Log writes messages to a logger in place of sending them, with their links and codes:
// whoever reads the log can enter the accounts. It is for development.
type Log struct{ logger *slog.Logger }

var _ Mailer = (*Log)(nil)

// NewLog returns the mailer that writes to logger, at level Info. A nil logger means
// [slog.Default].
func NewLog(logger *slog.Logger) *Log { return &Log{logger: logger} }

// Send writes the recipient, the subject and the text. It refuses what [SMTP.Send] would.
func (l *Log) Send(ctx context.Context, m *Message) error {
	p, err := m.parse()
	if err != nil {
		return err
	}
	logger := l.logger
	if logger == nil {
		logger = slog.Default()
	}
	logger.LogAttrs(ctx, slog.LevelInfo, "mail, not sent: the mail log is for development",
		slog.String("to", p.to), slog.String("subject", p.Subject), slog.String("text", p.Text))
	return nil
}
