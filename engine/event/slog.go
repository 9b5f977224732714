package event

import (
	"context"
	"log/slog"
)

// SlogSink returns the sink that writes each event as one record of logger:
// successes at level Info, failures at level Warn. A nil logger means
// [slog.Default].
func SlogSink(logger *slog.Logger) Sink {
	return slogSink{logger: logger}
}

type slogSink struct{ logger *slog.Logger }

func (s slogSink) Record(ctx context.Context, e Event) {
	logger := s.logger
	if logger == nil {
		logger = slog.Default()
	}
	level := slog.LevelInfo
	if e.Result == Failure {
		level = slog.LevelWarn
	}
	logger.LogAttrs(ctx, level, "mandate event", slog.Any("event", e))
}
