//go:generate go run ./internal/gendoc ../docs/manifest.md

package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
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
func (m *Manifest) Effective() []Setting { return slices.Clone(m.settings) }

// Digest returns the SHA-256 of the effective configuration without its
// secrets, in hexadecimal: two manifests with one digest mean the same.
func (m *Manifest) Digest() string {
	h := sha256.New()
	for _, s := range m.settings {
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
