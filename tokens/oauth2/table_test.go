package oauth2

import (
	"crypto/sha256"
	"encoding/binary"
	"testing"
)

// A flood of secrets takes no more memory than the table was given.
func TestTableIsBounded(t *testing.T) {
	t.Parallel()
	const size = 256
	table := newTable(size)
	var raw [8]byte
	for i := range uint64(20 * size) {
		binary.BigEndian.PutUint64(raw[:], i)
		d := digest(sha256.Sum256(raw[:]))
		e := &entry{}
		table.put(d, e)
		table.put(d, e)
		if table.get(d) != e {
			t.Fatal("what was put is not found")
		}
	}
	if n := table.len(); n > size {
		t.Errorf("%d entries, at most %d are allowed", n, size)
	}
}
