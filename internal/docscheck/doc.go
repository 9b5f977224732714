// Package docscheck holds the documents against the code: the tests that
// docs/security.md names exist, links lead somewhere, and Go blocks are those of
// the examples that run. It has no code besides its tests.
package docscheck
