//go:generate go run ./internal/genopenapi openapi.yaml openapi.json

// Package schemas embeds the machine-readable contracts of Mandate.
package schemas

import _ "embed"

// Manifest is the JSON Schema (2020-12) of a manifest. Editors find it through
// the manifest's "$schema"; its descriptions are the documentation of the keys.
//
//go:embed manifest.schema.json
var Manifest []byte

// OpenAPI is the OpenAPI 3.1 document of every route, as JSON; openapi.yaml is its
// source. An app serves the part of it that its manifest enables, under
// GET {base_path}/openapi.json.
//
//go:embed openapi.json
var OpenAPI []byte
