package table_test

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/mandate-auth/mandate/internal/table"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A flood of distinct credentials must cost time and no memory.
func TestBounded(t *testing.T) {
	t.Parallel()
	texts := table.New[string, int](1024, table.ByEnd())
	digests := table.New[[sha256.Size]byte, int](1024, table.ByDigest[[sha256.Size]byte])
	for i := range 50_000 {
		text := fmt.Sprintf("%0800d", i)
		texts.Put(text, i)
		digests.Put(sha256.Sum256([]byte(text)), i)
		if i%5000 == 0 && (texts.Len() > 1024 || digests.Len() > 1024) {
			t.Fatalf("%d and %d are remembered, at most 1024 may be", texts.Len(), digests.Len())
		}
	}
	if texts.Len() < 900 || digests.Len() < 900 {
		t.Errorf("%d and %d are remembered of 1024 places", texts.Len(), digests.Len())
	}
}

// Nothing is remembered by anything but its exact key, and what is put again takes
// nobody's place.
func TestExactKeys(t *testing.T) {
	t.Parallel()
	of := table.New[string, int](32, table.ByEnd())
	one, other := strings.Repeat("a", 100)+"x", strings.Repeat("b", 100)+"x"
	of.Put(one, 1)
	if of.Get(one) != 1 || of.Get(other) != 0 || of.Get(one[1:]) != 0 || of.Get("") != 0 {
		t.Error("a text is remembered by another one")
	}
	of.Put(one, 2)
	if of.Get(one) != 2 || of.Len() != 1 {
		t.Errorf("put again: %d, %d entries", of.Get(one), of.Len())
	}
	of.Drop(one)
	of.Drop("nothing")
	if of.Get(one) != 0 || of.Len() != 0 {
		t.Error("what was dropped is there")
	}
}

// Many use a table at once; the race detector looks on.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	of := table.New[string, int](64, table.ByEnd())
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				key := fmt.Sprint(i % 100)
				of.Put(key, i)
				if v := of.Get(key); v < 0 {
					t.Error("what was never put")
				}
				if i%7 == g {
					of.Drop(key)
				}
			}
		})
	}
	wg.Wait()
	if of.Len() > 64 {
		t.Errorf("%d entries, at most 64", of.Len())
	}
}

func BenchmarkGet(b *testing.B) {
	of := table.New[string, int](1024, table.ByEnd())
	text := strings.Repeat("t", 500)
	of.Put(text, 1)
	b.ReportAllocs()
	for b.Loop() {
		if of.Get(text) != 1 {
			b.Fatal("not there")
		}
	}
}
