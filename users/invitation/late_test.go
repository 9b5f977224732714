package invitation_test

import (
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/users/invitation"
)

// An invitation that goes out late promises no more than is left.
func TestLateInvitation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, err := b.Create(t.Context(), invitation.NewInvitation{Email: ada}); err != nil {
		t.Fatal(err)
	}
	job := b.outbox.last(t)
	for _, step := range []struct {
		wait time.Duration
		want string
	}{{0, "7 days"}, {time.Hour, "6 days"}, {6*24*time.Hour + 22*time.Hour + 50*time.Minute - 5*time.Second, "10 minutes"}} {
		b.move(step.wait)
		msg, err := b.Compose(t.Context(), job)
		if err != nil || msg == nil || !strings.Contains(msg.Text, step.want) {
			t.Errorf("after %s more: not %s: %+v, %v", step.wait, step.want, msg, err)
		}
	}
}
