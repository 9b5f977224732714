package engine_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/mandate-auth/mandate/engine"
)

// The document of a service lists how its callers can authorize themselves. With an
// app at hand app.OpenAPISchemes() says what its manifest admits, and app.OpenAPI()
// brings its routes as well.
func ExampleMergeOpenAPI() {
	own := []byte(`{
		"openapi": "3.1.0",
		"info": {"title": "Orders", "version": "1.0.0"},
		"paths": {
			"/orders": {
				"get": {
					"security": [{"apiKeyAuth": []}, {"clientCredentials": ["orders:read"]}],
					"responses": {"200": {"description": "The orders."}}
				}
			}
		}
	}`)
	merged, err := engine.MergeOpenAPI(own,
		engine.OpenAPIAPIKey(),
		engine.OpenAPIOAuth2ClientCredentials("https://orders.example/auth/oauth2/token", map[string]string{"orders:read": "read orders"}),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	var document struct {
		Components struct {
			SecuritySchemes map[string]struct{ Type string }
		}
	}
	if err := json.Unmarshal(merged, &document); err != nil {
		fmt.Println(err)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(document.Components.SecuritySchemes)) {
		fmt.Println(name, document.Components.SecuritySchemes[name].Type)
	}

	// Output:
	// apiKeyAuth apiKey
	// clientCredentials oauth2
}
