package audit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine/event"
)

// decoder reads a canonical text back. That there is one, and that it finds what was
// encoded, proves that no two records have the same text.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || n < 0 || n > len(d.rest) {
		d.err = errors.New("too short")
		return make([]byte, 8)
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) text() string {
	n := binary.BigEndian.Uint32(d.take(4))
	if d.err != nil {
		return ""
	}
	return string(d.take(int(n)))
}

func (d *decoder) number() int64   { return int64(binary.BigEndian.Uint64(d.take(8))) }
func (d *decoder) time() time.Time { return time.UnixMilli(d.number()).UTC() }

func (d *decoder) record() stored {
	var s stored
	if d.text() != recordDomain {
		d.err = errors.New("not a record")
	}
	s.App, s.Chain, s.Seq, s.Prev, s.PrevExpiresAt, s.ExpiresAt = d.text(), d.text(), d.number(), d.text(), d.time(), d.time()
	s.ID, s.Time, s.Type, s.Result = d.text(), d.time(), event.Type(d.text()), event.Result(d.text())
	for _, to := range []*string{
		&s.UserID, &s.ClientID, &s.Actor, &s.SessionID, &s.Reason, &s.Path, &s.Method, &s.IP, &s.UserAgent, &s.RequestID,
	} {
		*to = d.text()
	}
	s.IsM2M, s.StatusCode = d.take(1)[0] == 1, int(d.number())
	for range d.number() {
		if s.Metadata == nil {
			s.Metadata = map[string]string{}
		}
		name := d.text()
		s.Metadata[name] = d.text()
		if d.err != nil {
			break
		}
	}
	for n := d.number(); n > 0 && d.err == nil; n-- {
		s.Witness = append(s.Witness, Head{Chain: d.text(), Seq: d.number(), MAC: d.text(), ExpiresAt: d.time()})
	}
	if d.err == nil && len(d.rest) > 0 {
		d.err = errors.New("too long")
	}
	return s
}

// invent makes a record out of bytes: a zero byte ends each text.
func invent(data []byte) stored {
	next := func() string {
		before, after, _ := bytes.Cut(data, []byte{0})
		data = after
		return string(before)
	}
	number := func() int64 {
		var n int64
		for _, c := range []byte(next()) {
			n = n<<8 | int64(c)
		}
		return n
	}
	at := func() time.Time { return time.UnixMilli(number()).UTC() }
	var s stored
	for _, to := range []*string{
		&s.App, &s.Chain, &s.Prev, &s.ID, &s.UserID, &s.ClientID, &s.Actor, &s.SessionID, &s.Reason,
		&s.Path, &s.Method, &s.IP, &s.UserAgent, &s.RequestID,
	} {
		*to = next()
	}
	s.Type, s.Result = event.Type(next()), event.Result(next())
	s.Seq, s.StatusCode, s.IsM2M = number(), int(number()), next() != ""
	s.Time, s.PrevExpiresAt, s.ExpiresAt = at(), at(), at()
	for range number() & 7 {
		if s.Metadata == nil {
			s.Metadata = map[string]string{}
		}
		s.Metadata[next()] = next()
	}
	for range number() & 3 {
		s.Witness = append(s.Witness, Head{Chain: next(), Seq: number(), MAC: next(), ExpiresAt: at()})
	}
	return s
}

// FuzzCanonical invents two records. Their texts are alike only if they are, each is
// read back as it was, and neither is the text of a head.
func FuzzCanonical(f *testing.F) {
	f.Add([]byte("shop\x00chain\x00prev\x00id\x00usr"), []byte("shop\x00chai\x00nprev\x00id\x00usr"))
	f.Add(bytes.Repeat([]byte("a\x00"), 60), bytes.Repeat([]byte("aa\x00"), 60))
	f.Add([]byte(strings.Repeat("\x00", 22)+"\x02\x00k\x00v\x00l\x00w"), []byte(strings.Repeat("\x00", 22)+"\x01\x00k\x00vl\x00w"))
	f.Add([]byte{}, []byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, one, two []byte) {
		a, b := invent(one), invent(two)
		for _, s := range []stored{a, b} {
			text := s.canonical()
			d := &decoder{rest: text}
			if got := d.record(); d.err != nil || !reflect.DeepEqual(got, s) {
				t.Fatalf("got %+v, want %+v, %v", got, s, d.err)
			}
			h := headDocument{ID: s.ID, App: s.App, Chain: s.Chain, Type: s.Prev, Seq: s.Seq, Last: s.Reason}
			if bytes.Equal(text, h.canonical()) {
				t.Fatal("a record has the text of a head")
			}
		}
		if bytes.Equal(a.canonical(), b.canonical()) != reflect.DeepEqual(a, b) {
			t.Fatalf("two records have one text: %+v, %+v", a, b)
		}
	})
}

// What is stored and read back has the text that was signed: nothing is lost on the
// way through BSON.
func TestCanonicalSurvivesStorage(t *testing.T) {
	t.Parallel()
	now := time.Now().UTC().Truncate(time.Millisecond)
	full := stored{
		Record: Record{
			ID: "i", Time: now, Type: "t", Result: "r", UserID: "u", ClientID: "c", IsM2M: true, Actor: "a", SessionID: "s", Reason: "w",
			Path: "/p", Method: "M", StatusCode: 200, IP: "x", UserAgent: "é", RequestID: "q", Metadata: map[string]string{"k": "", "l": "v"}, Chain: "h", Seq: 7,
		},
		App: "shop", Prev: "p", PrevExpiresAt: now, Witness: []Head{{"c", 1, "m", now}}, ExpiresAt: now,
	}
	for _, s := range []stored{full, {}, {Record: Record{Metadata: map[string]string{}}, Witness: []Head{}}} {
		raw, err := bson.Marshal(&s)
		if err != nil {
			t.Fatal(err)
		}
		var back stored
		if err := bson.Unmarshal(raw, &back); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(back.canonical(), s.canonical()) {
			t.Errorf("got %+v, want %+v", back, s)
		}
	}
}

// Every field of a record and of a head is in its text: one that is added later and
// forgotten there would be free to change.
func TestCanonicalHoldsEveryField(t *testing.T) {
	t.Parallel()
	unsigned := []string{"KeyID", "MAC"}
	var check func(name string, v reflect.Value, text func() []byte)
	check = func(name string, v reflect.Value, text func() []byte) {
		before := text()
		old := reflect.New(v.Type()).Elem()
		old.Set(v)
		switch x := v.Addr().Interface().(type) {
		case *time.Time:
			*x = x.Add(time.Millisecond)
		case *bool:
			*x = !*x
		case *map[string]string:
			*x = map[string]string{"a": "b"}
		case *[]Head:
			*x = []Head{{Chain: "x"}}
		default:
			switch v.Kind() {
			case reflect.Struct:
				for i := range v.NumField() {
					check(name+"."+v.Type().Field(i).Name, v.Field(i), text)
				}
				return
			case reflect.String:
				v.SetString("changed")
			default:
				v.SetInt(v.Int() + 1)
			}
		}
		field := name[strings.LastIndex(name, ".")+1:]
		if bytes.Equal(before, text()) != slices.Contains(unsigned, field) {
			t.Errorf("%s is signed against what is said", name)
		}
		v.Set(old)
	}
	s, h := stored{}, headDocument{}
	check("record", reflect.ValueOf(&s).Elem(), func() []byte { return s.canonical() })
	check("head", reflect.ValueOf(&h).Elem(), func() []byte { return h.canonical() })
	for i := range reflect.TypeFor[Head]().NumField() {
		w := stored{Witness: []Head{{}}}
		check("record.Witness."+reflect.TypeFor[Head]().Field(i).Name+"_", reflect.ValueOf(&w.Witness[0]).Elem().Field(i), func() []byte { return w.canonical() })
	}
}

// FuzzClean cleans any text in any place. What comes out is bounded, valid and the
// same when it is cleaned again.
func FuzzClean(f *testing.F) {
	for _, s := range []string{"/a/b?c", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.", "Bearer x", "\x00\xff\u202e", strings.Repeat("é", 200), "mrt1.a.b.1.c", "a Basic\nb"} {
		f.Add(s)
	}
	now := time.Now()
	f.Fuzz(func(t *testing.T, s string) {
		r := Record{Path: s, UserAgent: s, Reason: s, Metadata: map[string]string{s: s, "k": s}}
		r.clean(now)
		again := r
		again.clean(now)
		if !reflect.DeepEqual(r, again) {
			t.Fatalf("%+v becomes %+v", r, again)
		}
		for _, v := range []string{r.Path, r.UserAgent, r.Metadata["k"]} {
			if len(v) > maxText || strings.ToValidUTF8(v, "") != v || strings.ContainsFunc(v, obeyed) {
				t.Fatalf("%q", v)
			}
		}
		if strings.ContainsAny(r.Path, "?#") {
			t.Fatalf("a query in %q", r.Path)
		}
	})
}
