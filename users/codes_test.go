package users_test

import (
	"sync"
	"testing"
	"time"
)

// A hundred wrong codes in a row end codes for the user, whoever else has guessed what,
// until they are forgotten.
func TestWrongCodes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	admitted := func(id string) bool {
		t.Helper()
		ok, err := b.CodesAdmitted(t.Context(), id)
		must(t, err)
		return ok
	}
	const a, z = "usr_0000000000000000000000000a", "usr_0000000000000000000000000z"
	if !admitted(a) {
		t.Error("somebody without a wrong code is refused")
	}
	var wg sync.WaitGroup
	for range 99 {
		wg.Go(func() {
			if err := b.CountWrongCode(t.Context(), a); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if !admitted(a) {
		t.Error("refused after 99")
	}
	must(t, b.CountWrongCode(t.Context(), a))
	if admitted(a) || !admitted(z) {
		t.Error("not refused after a hundred, or another one with them")
	}
	must(t, b.ForgetWrongCodes(t.Context(), a))
	if !admitted(a) {
		t.Error("refused after they were forgotten")
	}
	must(t, b.ForgetWrongCodes(t.Context(), a))
	// They are remembered for a year; those of nobody for an hour.
	for range 100 {
		must(t, b.CountWrongCode(t.Context(), a))
		must(t, b.CountWrongCode(t.Context(), "nobody"))
	}
	b.move(2 * time.Hour)
	if admitted(a) || !admitted("nobody") {
		t.Error("after two hours")
	}
	b.move(366 * 24 * time.Hour)
	if !admitted(a) {
		t.Error("after a year")
	}
}
