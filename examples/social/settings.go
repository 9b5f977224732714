package main

import (
	"crypto/rand"
	_ "embed"
	"os"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/examples/social/provider"
)

//go:embed manifest.json
var manifestJSON []byte

// settings are what this run is set to.
type settings struct {
	url, issuer string
	// made are the variables of the manifest.
	made map[string]string
}

func newSettings(url, issuer string) *settings {
	return &settings{url: url, issuer: issuer, made: map[string]string{
		"PUBLIC_URL": url, "LOCAL_ISSUER": issuer, "LOCAL_CLIENT_SECRET": rand.Text() + rand.Text(),
	}}
}

// lookup finds variables that were made, and those of the environment.
func (s *settings) lookup(name string) (string, bool) {
	if value, ok := s.made[name]; ok {
		return value, true
	}
	return os.LookupEnv(name)
}

// provider registers the service at its provider, as a person does it elsewhere: the
// provider has to know the callback, and the service the client's id and secret.
func (s *settings) provider() provider.Config {
	return provider.Config{
		Issuer: s.issuer, ClientID: "social", ClientSecret: s.made["LOCAL_CLIENT_SECRET"],
		RedirectURI: s.url + "/auth/oauth/local/callback",
	}
}

// secretKeys makes a key for this run when the environment has none, and the data goes
// with the run as well.
func secretKeys() []engine.Secret {
	if os.Getenv("MANDATE_SECRET_KEY") != "" || os.Getenv("MONGODB_URI") != "" {
		return nil
	}
	return []engine.Secret{engine.NewSecret(rand.Text() + rand.Text())}
}
