// Package reference writes docs/manifest.md from the schema.
package reference

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/mandate-auth/mandate/schemas"
)

type node struct {
	Type        any             `json:"type"`
	Properties  json.RawMessage `json:"properties"`
	Items       *node           `json:"items"`
	More        json.RawMessage `json:"additionalProperties"`
	Default     json.RawMessage `json:"default"`
	Description string          `json:"description"`
	Enum        []any           `json:"enum"`
	XType       string          `json:"x-type"`
	Required    []string        `json:"required"`
}

const intro = `# The manifest

One JSON file per app. This page is generated from ` + "`schemas/manifest.schema.json`" + ` by ` + "`go generate ./manifest`" + `; editors use the
schema through the key ` + "`$schema`" + `.

- Unknown and duplicate keys are refused, and all faults are reported at once, each with its place, its value and what is allowed.
- ` + "`${NAME}`" + ` or ` + "`${NAME:-default}`" + ` in a string takes an environment variable; a string that is one variable as a whole takes the type of its
  key. ` + "`$${`" + ` stands for a plain ` + "`${`" + `. A missing variable is a fault.
- Durations are strings (` + "`\"15m\"`" + `, ` + "`\"1h30m\"`" + `, ` + "`\"30d\"`" + `; units ms, s, m, h, d) or a number of seconds.

| key | type | default | meaning |
|---|---|---|---|
`

// Markdown returns the text of docs/manifest.md.
func Markdown() (string, error) {
	var root node
	if err := json.Unmarshal(schemas.Manifest, &root); err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(intro)
	if err := rows(&b, "", &root); err != nil {
		return "", err
	}
	return b.String(), nil
}

func rows(b *strings.Builder, prefix string, parent *node) error {
	names, children, err := members(parent.Properties)
	if err != nil {
		return err
	}
	for _, name := range names {
		n, key := children[name], prefix+name
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", key, typeOf(n), defaultOf(n, slices.Contains(parent.Required, name)), strings.ReplaceAll(n.Description, "|", "\\|"))
		next := n
		if n.Items != nil && len(n.Items.Properties) > 0 {
			next, key = n.Items, key+"[]"
		}
		if len(n.Properties) == 0 && len(n.More) > 0 && n.More[0] == '{' {
			named := &node{}
			if err := json.Unmarshal(n.More, named); err != nil {
				return err
			}
			next, key = named, key+".{name}"
		}
		if err := rows(b, key+".", next); err != nil {
			return err
		}
	}
	return nil
}

// members returns the properties in the order of the schema.
func members(raw json.RawMessage) ([]string, map[string]*node, error) {
	if len(raw) == 0 {
		return nil, nil, nil
	}
	children := map[string]*node{}
	if err := json.Unmarshal(raw, &children); err != nil {
		return nil, nil, err
	}
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	if _, err := dec.Token(); err != nil {
		return nil, nil, err
	}
	var names []string
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, nil, err
		}
		names = append(names, fmt.Sprint(token))
		var skip json.RawMessage
		if err := dec.Decode(&skip); err != nil {
			return nil, nil, err
		}
	}
	return names, children, nil
}

func typeOf(n *node) string {
	switch {
	case n.XType != "":
		return n.XType
	case len(n.Enum) > 0:
		words := make([]string, len(n.Enum))
		for i, v := range n.Enum {
			words[i] = fmt.Sprint(v)
		}
		return "`" + strings.Join(words, "`, `") + "`"
	default:
		return fmt.Sprint(n.Type)
	}
}

func defaultOf(n *node, required bool) string {
	switch {
	case required:
		return "required"
	case len(n.Default) == 0:
		return "–"
	default:
		var compact strings.Builder
		for _, line := range strings.Split(string(n.Default), "\n") {
			compact.WriteString(strings.TrimSpace(line))
		}
		return "`" + compact.String() + "`"
	}
}
