// Package schemas embeds the machine-readable contracts of Mandate.
package schemas

import _ "embed"

// Manifest is the JSON Schema (2020-12) of a manifest. Editors find it through
// the manifest's "$schema"; its descriptions are the documentation of the keys.
//
//go:embed manifest.schema.json
var Manifest []byte
