package enginetest_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
)

// stub is a testing.TB outside a test: for examples, and to see how a test ends.
// A method that it does not have panics.
type stub struct {
	testing.TB
	ctx      context.Context
	cleanups []func()
	failure  string
}

func (s *stub) Helper()                           {}
func (s *stub) Context() context.Context          { return s.ctx }
func (s *stub) Cleanup(f func())                  { s.cleanups = append(s.cleanups, f) }
func (s *stub) Error(args ...any)                 { s.failure += fmt.Sprintln(args...) }
func (s *stub) Errorf(format string, args ...any) { s.Error(fmt.Sprintf(format, args...)) }
func (s *stub) Fatalf(format string, args ...any) { s.Fatal(fmt.Sprintf(format, args...)) }
func (s *stub) Fatal(args ...any) {
	s.Error(args...)
	runtime.Goexit()
}

// outcome runs f as a test and returns how it failed, "" when it did not.
func outcome(f func(t testing.TB)) string {
	ctx, cancel := context.WithCancel(context.Background())
	s := &stub{ctx: ctx}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f(s)
	}()
	<-ended
	cancel() // as in a test: before the clean-up
	for i := len(s.cleanups) - 1; i >= 0; i-- {
		s.cleanups[i]()
	}
	return s.failure
}

// inTest runs an example as a test. A failure is output that nobody expects.
func inTest(f func(t testing.TB)) {
	if failure := outcome(f); failure != "" {
		fmt.Print(failure)
	}
}
