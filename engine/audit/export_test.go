package audit

import (
	"context"
	"time"
)

// SummaryOf is Summary with bounds that a test can reach.
func (t *Trail) SummaryOf(ctx context.Context, page, most int) (Summary, error) {
	return t.summarize(ctx, time.Time{}, time.Time{}, page, most)
}
