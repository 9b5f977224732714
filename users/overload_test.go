package users_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/users"
)

// An overload refuses and locks nobody out: an attempt that was never compared is
// given back.
func TestOverloadGivesAttemptsBack(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	var once sync.Once
	reached := make(chan struct{})
	hasher, err := users.NewHasher(users.HasherConfig{Slots: 1, QueuePerSlot: 2, QueueDeadline: time.Millisecond, OnHash: func() {
		once.Do(func() { close(reached) })
		<-hold
	}})
	if err != nil {
		t.Fatal(err)
	}
	b := setup(t, func(c *users.Config) { c.Lockout = users.Lockout{MaxFailures: 3, Wait: 50 * time.Millisecond} })
	b.create(t, "ada@example.com")
	b.create(t, "ben@example.com")
	slow := setupOn(t, b.db, func(c *users.Config) {
		c.Hasher, c.Lockout = hasher, users.Lockout{MaxFailures: 3, Wait: 50 * time.Millisecond}
	})
	first := make(chan error, 1)
	go func() { first <- slow.login(t, "ben@example.com", password) }()
	<-reached
	for range 20 { // far more than there are attempts
		if err := slow.login(t, "ada@example.com", password); !errors.Is(err, users.ErrBusy) {
			t.Errorf("while the hasher is busy: %v", err)
		}
	}
	close(hold)
	if err := <-first; err != nil {
		t.Errorf("the one that was hashed: %v", err)
	}
	if err := b.login(t, "ada@example.com", password); err != nil {
		t.Errorf("after the overload: %v", err)
	}
}
