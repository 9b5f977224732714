package polar

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/osohq/go-oso"
	osoerrors "github.com/osohq/go-oso/errors"
	"github.com/osohq/go-oso/types"

	"github.com/mandate-auth/mandate/authz"
)

// maxOverflows is how many queries may leave their memory behind.
const maxOverflows = 3

// newEngine returns an engine with the policy.
func newEngine(name, policy string) (oso.Oso, error) {
	e, err := oso.NewOso()
	if err != nil {
		return e, fmt.Errorf("polar: %w", err)
	}
	for _, class := range []any{User{}, Object{}} {
		if err := e.RegisterClass(class, nil); err != nil {
			return e, fmt.Errorf("polar: %w", err)
		}
	}
	if err := e.LoadString(policy); err != nil {
		var polar *osoerrors.FormattedPolarError
		if errors.As(err, &polar) {
			err = errors.New(strings.TrimSpace(polar.Formatted)) // with the line
		}
		return e, fmt.Errorf("polar: %s: %w", name, err)
	}
	return e, nil
}

// run does the work on an engine and waits for it as long as ctx lets it. The
// engine comes back when the work has ended, which may be later.
func (p *Provider) run(ctx context.Context, work func(oso.Oso) ([]authz.Permission, error)) ([]authz.Permission, error) {
	var e oso.Oso
	select {
	case e = <-p.engines:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: every engine is busy: %w", authz.ErrUnavailable, ctx.Err())
	}
	if !p.begin() {
		p.engines <- e
		return nil, fmt.Errorf("%w: the provider is closed", authz.ErrUnavailable)
	}
	type answer struct {
		allowed []authz.Permission
		err     error
	}
	answers := make(chan answer, 1)
	go func() {
		defer p.end()
		allowed, err := work(e)
		p.engines <- e
		answers <- answer{allowed, err}
	}()
	select {
	case a := <-answers:
		return a.allowed, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: the query takes too long: %w", authz.ErrUnavailable, ctx.Err())
	}
}

// begin counts a query, unless the provider is closed.
func (p *Provider) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.running++
	return true
}

func (p *Provider) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running--; p.running == 0 && p.closed {
		close(p.idle)
	}
}

// Close makes the provider refuse, and waits for queries that still run.
func (p *Provider) Close(ctx context.Context) error {
	if p == nil {
		return nil // a failed New in an interface: the engine closes what it got
	}
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		if p.running == 0 {
			close(p.idle)
		}
	}
	p.mu.Unlock()
	select {
	case <-p.idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("polar: a query still runs: %w", ctx.Err())
	}
}

// allows asks the policy. It is IsAllowed of go-oso, which leaves the memory of
// queries behind that fail.
func (p *Provider) allows(e oso.Oso, actor User, permission authz.Permission) (allowed bool, err error) {
	if p.overflows.Load() >= maxOverflows {
		return false, fmt.Errorf("%w: its stack has overflowed %d times; a rule calls itself without end", ErrEvaluation, maxOverflows)
	}
	var missed missed
	actor.missed = &missed
	object := Object{App: p.config.App, Name: permission.Object, missed: &missed}
	var query *oso.Query
	defer func() {
		if v := recover(); v != nil {
			allowed, err = false, fmt.Errorf("%w: panic: %v", ErrEvaluation, v)
			if query != nil {
				query.Cleanup() // a panic passes by all places where go-oso does it
			}
		}
	}()
	if query, err = e.NewQueryFromRule("allow", actor, permission.Action, object); err != nil {
		return false, failed(err)
	}
	result, err := query.Next()
	switch {
	case err != nil:
		p.release(query, err)
		return false, failed(err)
	case result != nil:
		query.Cleanup() // without one go-oso does it
	}
	if missed.attribute {
		return false, fmt.Errorf("%w: it asks for an attribute that there is not, under a \"not\"", ErrEvaluation)
	}
	return result != nil, nil
}

// release frees a query that failed, where it is certain that go-oso has not. Next
// returns the errors of the policy's run as they are, and frees after errors of the
// calls in between: fetching an attribute, comparing a class. Of the kind
// "runtime", a stack overflow alone can come from either.
func (p *Provider) release(query *oso.Query, err error) {
	var polar *osoerrors.FormattedPolarError
	if !errors.As(err, &polar) {
		return
	}
	run, ok := polar.Kind.ErrorKindVariant.(types.ErrorKindRuntime)
	if !ok {
		return
	}
	if _, overflow := run.RuntimeErrorVariant.(types.RuntimeErrorStackOverflow); overflow {
		p.overflows.Add(1)
		return
	}
	query.Cleanup()
}

// failed says what went wrong in one line: go-oso's errors are pages with traces.
func failed(err error) error {
	text := err.Error()
	var polar *osoerrors.FormattedPolarError
	if errors.As(err, &polar) {
		text = strings.TrimSpace(polar.Formatted)
		if i := strings.LastIndex(text, "\n\n"); i >= 0 {
			text = text[i+2:] // a trace comes before
		}
	}
	text, _, _ = strings.Cut(text, "\n")
	return fmt.Errorf("%w: %s", ErrEvaluation, strings.TrimSuffix(text, ":"))
}
