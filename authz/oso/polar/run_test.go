package polar_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/oso/polar"
)

// The service's function may fail in any way.
func TestRolesFail(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		roles   func(context.Context, string) ([]string, error)
		timeout time.Duration
		want    error
	}{
		"an error": {func(context.Context, string) ([]string, error) { return []string{"admin"}, os.ErrClosed }, 0, authz.ErrUnavailable},
		"a panic":  {func(context.Context, string) ([]string, error) { panic("oops") }, 0, authz.ErrUnavailable},
		"no text":  {func(context.Context, string) ([]string, error) { return []string{"admin", "\xff"}, nil }, 0, polar.ErrEvaluation},
		"no end": {func(ctx context.Context, _ string) ([]string, error) {
			<-ctx.Done()
			return []string{"admin"}, ctx.Err()
		}, time.Millisecond, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := create(t, polar.Config{
				App: "shop", Policy: []byte("allow(_, _, _);"), Catalog: catalog, Engines: 1, Roles: tt.roles, Timeout: tt.timeout,
			})
			if d, err := p.Authorize(t.Context(), ask(ada, "documents", "read")); d.Allowed || !errors.Is(err, tt.want) {
				t.Errorf("Authorize: %+v, %v; want %v", d, err, tt.want)
			}
			if has, err := p.HasRole(t.Context(), ada, "admin"); has || !errors.Is(err, tt.want) {
				t.Errorf("HasRole: %t, %v; want %v", has, err, tt.want)
			}
			if list, err := p.Permissions(t.Context(), ada); len(list) != 0 || !errors.Is(err, tt.want) {
				t.Errorf("Permissions: %v, %v; want %v", list, err, tt.want)
			}
		})
	}
}

// Many ask at once, more than there are engines, and each gets its own answer.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	p := create(t, polar.Config{
		App: "shop", Engines: 2, Policy: []byte(`allow(user: User, "read", object: Object) if object.Name in user.Roles;`),
		Roles: func(_ context.Context, subject string) ([]string, error) { return []string{"of-" + subject}, nil },
	})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			me, other := fmt.Sprintf("usr_%026d", i), fmt.Sprintf("usr_%026d", i+1)
			for range 25 {
				want(t, p, me, "of-"+me, "read", true)
				want(t, p, me, "of-"+other, "read", false)
			}
		})
	}
	wg.Wait()
}

// A caller waits neither for a query without end nor for its engine. The query ends
// by Oso's own limit, and then the engine is there again.
func TestDeadline(t *testing.T) {
	t.Parallel()
	search := make([]string, 12)
	for i := range search {
		search[i] = fmt.Sprintf("_x%d in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] and ", i)
	}
	p := create(t, polar.Config{
		App: "shop", Engines: 1, Timeout: time.Minute, Catalog: catalog,
		Policy: []byte(`allow(_, "write", _); allow(_, "read", _) if ` + strings.Join(search, "") + `1 = 2;`),
	})
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	for _, action := range []string{"read", "write"} { // the second waits for the engine of the first
		d, err := p.Authorize(short(), ask(ada, "documents", action))
		if d != (authz.Decision{}) || !errors.Is(err, authz.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%s: %+v, %v; want authz.ErrUnavailable", action, d, err)
		}
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if d, err := p.Authorize(canceled, ask(ada, "documents", "write")); d.Allowed || !errors.Is(err, context.Canceled) || errors.Is(err, authz.ErrUnavailable) {
		t.Errorf("a caller that has gone: %+v, %v", d, err)
	}
	if has, err := p.HasRole(canceled, ada); has || !errors.Is(err, context.Canceled) {
		t.Errorf("HasRole: %t, %v", has, err)
	}
	if list, err := p.Permissions(canceled, ada); len(list) != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("Permissions: %v, %v", list, err)
	}
	want(t, p, ada, "documents", "write", true)
}

// Close waits for what runs, refuses what comes, and can be called again.
func TestClose(t *testing.T) {
	t.Parallel()
	p := shop(t, "allow(_, _, _);")
	for range 2 {
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if d, err := p.Authorize(t.Context(), ask(ada, "documents", "read")); d.Allowed || !errors.Is(err, authz.ErrUnavailable) {
		t.Errorf("a closed provider: %+v, %v; want authz.ErrUnavailable", d, err)
	}
	// What New returns with an error, in an interface, is closed by the engine.
	var failed *polar.Provider
	if err := failed.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
