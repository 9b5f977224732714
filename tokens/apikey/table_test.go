package apikey

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"testing"
)

// A flood of keys takes no more memory than the table was given.
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

func TestFreeSlots(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		taken []int
		limit int
		want  []int
	}{
		{"none taken", nil, 3, []int{0, 1, 2}},
		{"some taken", []int{1}, 3, []int{0, 2}},
		{"all taken", []int{2, 0, 1}, 3, nil},
		{"limit lowered, many from above", []int{3, 4, 5}, 3, nil},
		{"limit lowered, one from above", []int{7}, 3, []int{0, 1}},
		{"limit lowered, above and below", []int{0, 7}, 3, []int{1}},
		{"limit lowered, full", []int{0, 2, 7}, 3, nil},
		{"limit lowered, more than full", []int{0, 1, 2, 7}, 3, nil},
	} {
		if got := free(test.taken, test.limit); !slices.Equal(got, test.want) {
			t.Errorf("%s: free slots %v, want %v", test.name, got, test.want)
		}
	}
}

// Whatever slots are taken, filling all that are free never passes the limit where
// it was not passed before.
func TestFreeSlotsNeverPassTheLimit(t *testing.T) {
	t.Parallel()
	const slots = 8
	for set := range 1 << slots {
		var taken []int
		for i := range slots {
			if set&(1<<i) != 0 {
				taken = append(taken, i)
			}
		}
		for limit := 1; limit <= slots; limit++ {
			open := free(taken, limit)
			if n := len(taken) + len(open); n > max(limit, len(taken)) {
				t.Fatalf("taken %v, limit %d: %v are free, that makes %d", taken, limit, open, n)
			}
			if len(taken) < limit && len(open) == 0 {
				t.Fatalf("taken %v, limit %d: no slot is free", taken, limit)
			}
		}
	}
}
