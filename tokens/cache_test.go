package tokens

import (
	"fmt"
	"strings"
	"testing"
)

// A flood of distinct tokens must cost time and no memory.
func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	c := newCache(1024)
	for i := range 100_000 {
		c.put(fmt.Sprintf("%0800d", i), &Verified{})
		if n := c.len(); i%5000 == 0 && n > 1024 {
			t.Fatalf("%d tokens are remembered, at most 1024 may be", n)
		}
	}
	if n := c.len(); n < 900 || n > 1024 {
		t.Errorf("%d tokens are remembered of 1024 places", n)
	}
	one, other := strings.Repeat("a", 100)+"x", strings.Repeat("b", 100)+"x"
	v := &Verified{}
	c.put(one, v)
	if c.get(one) != v || c.get(other) != nil || c.get(one[1:]) != nil {
		t.Error("a token is remembered by anything but its exact bytes")
	}
}
