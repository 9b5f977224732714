// Package policyfile reads and writes the policy of one app: as CSV in the format of
// Casbin's policy files, which stock Casbin reads, and as JSON.
//
//	p, editor, shop, documents, write, allow
//	g, usr_…, editor, shop
//
//	{"rules": [{"subject": "editor", "object": "documents", "action": "write", "effect": "allow"}],
//	 "assignments": [{"subject": "usr_…", "role": "editor"}]}
//
// A file is taken whole or not at all: every fault in it is reported, with its
// line.
package policyfile

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/mandate-auth/mandate/authz"
)

const (
	// MaxSize is the greatest size of a file in bytes.
	MaxSize = 64 << 20
	// MaxFaults is how many faults are reported.
	MaxFaults = 20
)

// Policy is what a file holds.
type Policy struct {
	Rules       []authz.Rule       `json:"rules"`
	Assignments []authz.Assignment `json:"assignments"`
}

// Fault is something that is wrong with a file.
type Fault struct {
	// Line counts from 1; 0 is the file as a whole.
	Line int
	// Message says what to do.
	Message string
}

func (f Fault) String() string {
	if f.Line == 0 {
		return f.Message
	}
	return fmt.Sprintf("line %d: %s", f.Line, f.Message)
}

// Error is every fault of a file, at most [MaxFaults].
type Error struct{ Faults []Fault }

func (e *Error) Error() string {
	lines := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		lines[i] = f.String()
	}
	return "the policy cannot be read: " + strings.Join(lines, "; ")
}

func (e *Error) add(line int, format string, args ...any) {
	if len(e.Faults) < MaxFaults {
		e.Faults = append(e.Faults, Fault{Line: line, Message: fmt.Sprintf(format, args...)})
	}
}

func (e *Error) orNil() error {
	if len(e.Faults) == 0 {
		return nil
	}
	return e
}

// read takes a file that is not too large, without a byte order mark.
func read(r io.Reader) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the policy: %w", err)
	case len(raw) > MaxSize:
		return nil, &Error{[]Fault{{0, "it is larger than 64 MiB"}}}
	case !utf8.Valid(raw):
		return nil, &Error{[]Fault{{0, "it is not valid UTF-8"}}}
	}
	return bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf")), nil
}

// WriteCSV writes the policy of the app in Casbin's format.
func WriteCSV(w io.Writer, app string, p *Policy) error {
	b := bufio.NewWriter(w)
	for _, r := range p.Rules {
		if err := r.Check(); err != nil {
			return err
		}
		effect := r.Effect
		if effect == "" {
			effect = authz.Allow
		}
		_, _ = fmt.Fprintf(b, "p, %s, %s, %s, %s, %s\n", r.Subject, app, r.Object, r.Action, effect)
	}
	for _, a := range p.Assignments {
		if err := a.Check(); err != nil {
			return err
		}
		_, _ = fmt.Fprintf(b, "g, %s, %s, %s\n", a.Subject, a.Role, app)
	}
	return b.Flush() // which tells what one of the writes before could not do
}

// ReadCSV reads a policy of the app in Casbin's format. Lines that are empty or begin
// with # mean nothing. Every line has to be one of the app: a file of several apps is
// not for one of them. The error is an [*Error].
func ReadCSV(r io.Reader, app string) (*Policy, error) {
	raw, err := read(r)
	if err != nil {
		return nil, err
	}
	p, faults := &Policy{}, &Error{}
	for i, line := range strings.Split(string(raw), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		// One line at a time, as Casbin reads it: a quote cannot swallow the next.
		reader := csv.NewReader(strings.NewReader(line))
		reader.TrimLeadingSpace, reader.Comment = true, '#'
		values, err := reader.Read()
		if err != nil {
			faults.add(i+1, "is no line of CSV")
			continue
		}
		if err := p.line(app, values); err != nil {
			faults.add(i+1, "%s", err)
		}
	}
	return p.checked(faults)
}

func (p *Policy) line(app string, v []string) error {
	switch {
	case v[0] == "p" && (len(v) == 5 || len(v) == 6):
		r := authz.Rule{Subject: v[1], Permission: authz.Permission{Object: v[3], Action: v[4]}, Effect: authz.Allow}
		if len(v) == 6 {
			r.Effect = authz.Effect(v[5])
		}
		if v[2] != app {
			return fmt.Errorf("is of the domain %q, not of %q", v[2], app)
		}
		p.Rules = append(p.Rules, r)
		return r.Check()
	case v[0] == "g" && len(v) == 4:
		a := authz.Assignment{Subject: v[1], Role: v[2]}
		if v[3] != app {
			return fmt.Errorf("is of the domain %q, not of %q", v[3], app)
		}
		p.Assignments = append(p.Assignments, a)
		return a.Check()
	default:
		return errors.New("has to be p, subject, domain, object, action, effect or g, subject, role, domain")
	}
}

// checked returns the policy without what comes twice, or its faults.
func (p *Policy) checked(faults *Error) (*Policy, error) {
	if err := faults.orNil(); err != nil {
		return nil, err
	}
	p.Rules, p.Assignments = unique(p.Rules), unique(p.Assignments)
	return p, nil
}

func unique[T comparable](list []T) []T {
	seen := make(map[T]struct{}, len(list))
	return slices.DeleteFunc(list, func(x T) bool {
		_, twice := seen[x]
		seen[x] = struct{}{}
		return twice
	})
}

// WriteJSON writes the policy as JSON.
func WriteJSON(w io.Writer, p *Policy) error {
	out := Policy{Rules: p.Rules, Assignments: p.Assignments}
	if out.Rules == nil {
		out.Rules = []authz.Rule{}
	}
	if out.Assignments == nil {
		out.Assignments = []authz.Assignment{}
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(out)
}

// ReadJSON reads what WriteJSON writes. Members that are unknown or come twice, and
// anything after the end, are faults. The error is an [*Error].
func ReadJSON(r io.Reader) (*Policy, error) {
	raw, err := read(r)
	if err != nil {
		return nil, err
	}
	faults := &Error{}
	p := &Policy{}
	d := &decoder{json: json.NewDecoder(bytes.NewReader(raw)), raw: raw}
	err = d.object(map[string]func() error{
		"rules": d.list(func() error {
			var r authz.Rule
			at := d.place()
			err := d.object(map[string]func() error{
				"subject": d.text(&r.Subject), "object": d.text(&r.Object), "action": d.text(&r.Action), "effect": d.text((*string)(&r.Effect)),
			})
			if err == nil && r.Effect == "" {
				r.Effect = authz.Allow
			}
			p.Rules = append(p.Rules, r)
			if err == nil {
				noteFault(faults, at, r.Check())
			}
			return err
		}),
		"assignments": d.list(func() error {
			var a authz.Assignment
			at := d.place()
			err := d.object(map[string]func() error{"subject": d.text(&a.Subject), "role": d.text(&a.Role)})
			p.Assignments = append(p.Assignments, a)
			if err == nil {
				noteFault(faults, at, a.Check())
			}
			return err
		}),
	})
	if err == nil {
		if _, end := d.json.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("there is something after the end")
		}
	}
	if err != nil {
		faults.add(d.place(), "%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return p.checked(faults)
}

func noteFault(faults *Error, line int, err error) {
	if err != nil {
		faults.add(line, "%s", err)
	}
}

// decoder reads JSON strictly.
type decoder struct {
	json *json.Decoder
	raw  []byte
}

// place is the line of what is read next.
func (d *decoder) place() int {
	end := int(d.json.InputOffset())
	rest := bytes.TrimLeft(d.raw[end:], " \t\r\n,:")
	return bytes.Count(d.raw[:len(d.raw)-len(rest)], []byte("\n")) + 1
}

func (d *decoder) object(members map[string]func() error) error {
	token, err := d.json.Token()
	if err != nil {
		return err
	}
	if token != json.Delim('{') {
		return errors.New("an object is expected")
	}
	seen := map[string]bool{}
	for d.json.More() {
		token, err := d.json.Token()
		if err != nil {
			return err
		}
		name, _ := token.(string)
		switch {
		case members[name] == nil:
			return fmt.Errorf("the member %q is not known", name)
		case seen[name]:
			return fmt.Errorf("the member %q comes twice", name)
		}
		seen[name] = true
		if err := members[name](); err != nil {
			return err
		}
	}
	_, err = d.json.Token()
	return err
}

func (d *decoder) list(item func() error) func() error {
	return func() error {
		token, err := d.json.Token()
		if err != nil {
			return err
		}
		if token != json.Delim('[') {
			return errors.New("a list is expected")
		}
		for d.json.More() {
			if err := item(); err != nil {
				return err
			}
		}
		_, err = d.json.Token()
		return err
	}
}

func (d *decoder) text(into *string) func() error {
	return func() error {
		token, err := d.json.Token()
		if err != nil {
			return err
		}
		text, ok := token.(string)
		if !ok {
			return errors.New("a text is expected")
		}
		*into = text
		return nil
	}
}
