//go:generate go run ./internal/gendoc ../docs/manifest.md

package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unique"
)

const (
	redacted      = "[redacted]"
	sourceDefault = "default"
	sourceFile    = "file"
)

// Setting is one value of the effective configuration.
type Setting struct {
	// Pointer is the key, as a JSON Pointer.
	Pointer string `json:"pointer"`
	// Value is the value, "[redacted]" for a secret.
	Value any `json:"value"`
	// Source is "default", "file" or "environment NAME".
	Source string `json:"source"`
}

func (s Setting) String() string {
	return fmt.Sprintf("%s = %s (%s)", s.Pointer, render(s.Value), s.Source)
}

// Effective returns every value that is in force and where it comes from, in
// the order of the keys. Secrets are not shown.
func (m *Manifest) Effective() []Setting {
	out := make([]Setting, 0, len(plainSettings())+len(m.settings))
	own := m.settings
	for _, s := range plainSettings() {
		at := strings.Split(s.Pointer, "/")
		for len(own) > 0 && slices.Compare(strings.Split(own[0].Pointer, "/"), at) < 0 {
			out, own = append(out, own[0]), own[1:]
		}
		if len(own) > 0 && own[0].Pointer == s.Pointer {
			s, own = own[0], own[1:]
		}
		out = append(out, s)
	}
	return append(out, own...)
}

// plainSettings are those of a manifest that says nothing but its slug. Every manifest
// has these keys, so each keeps what is different and no more.
var plainSettings = sync.OnceValue(func() []Setting {
	p := newParser(func(string) (string, bool) { return "", false })
	m, err := p.parseWhole([]byte(`{"slug":"plain"}`))
	if err != nil {
		panic("the embedded schema is broken: " + err.Error())
	}
	return m.settings
})

// different leaves the settings that plainSettings has not.
func different(settings []Setting) []Setting {
	var out []Setting
	plain := plainSettings()
	for _, s := range settings {
		for len(plain) > 0 && plain[0].Pointer != s.Pointer && slices.Compare(strings.Split(plain[0].Pointer, "/"), strings.Split(s.Pointer, "/")) < 0 {
			plain = plain[1:]
		}
		if len(plain) > 0 && plain[0].Pointer == s.Pointer && plain[0].Source == s.Source && reflect.DeepEqual(plain[0].Value, s.Value) {
			continue
		}
		out = append(out, s)
	}
	return slices.Clone(out) // of its own length
}

// Digest returns the SHA-256 of the effective configuration without its
// secrets, in hexadecimal: two manifests with one digest mean the same.
func (m *Manifest) Digest() string {
	h := sha256.New()
	for _, s := range m.Effective() {
		raw, err := json.Marshal(s.Value)
		if err != nil {
			raw = []byte(err.Error())
		}
		_, _ = fmt.Fprintf(h, "%s=%s\n", s.Pointer, raw)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (p *parser) flatten(s *schema, pointer string, v any, out []Setting) []Setting {
	switch x := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(x)) {
			out = p.flatten(s.property(name), pointer+"/"+escape(name), x[name], out)
		}
		return out
	case []any:
		if s.items() != nil && s.Items.Types == "object" {
			for i, item := range x {
				out = p.flatten(s.Items, pointer+"/"+strconv.Itoa(i), item, out)
			}
			return out
		}
	}
	source := p.sources[pointer]
	if source == "" {
		source = sourceFile
	}
	// Manifests have the same keys: one text of each serves all apps of a process.
	setting := Setting{Pointer: unique.Make(pointer).Value(), Value: v, Source: source}
	if s != nil && s.Secret {
		setting.Value = redacted
	}
	return append(out, setting)
}
