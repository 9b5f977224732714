package polar

import (
	"context"
	"errors"
	"testing"

	"github.com/osohq/go-oso"

	"github.com/mandate-auth/mandate/authz"
)

// A query that still runs keeps Close waiting, and comes back afterwards.
func TestCloseWaits(t *testing.T) {
	t.Parallel()
	p, err := New(Config{App: "shop", Policy: []byte("allow(_, _, _);"), Engines: 1})
	if err != nil {
		t.Fatal(err)
	}
	started, release := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	answered := make(chan error, 1)
	go func() {
		_, err := p.run(ctx, func(oso.Oso) ([]authz.Permission, error) {
			close(started)
			<-release
			return []authz.Permission{{Object: "documents", Action: "read"}}, nil
		})
		answered <- err
	}()
	<-started
	cancel()
	if err := <-answered; !errors.Is(err, authz.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that has gone: %v", err)
	}
	if err := p.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Close did not wait for the query: %v", err)
	}
	close(release)
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if len(p.engines) != 1 {
		t.Error("the engine did not come back")
	}
}
