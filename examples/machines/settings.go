package main

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/mandate-auth/mandate/engine"
)

// settings are what this run is set to.
type settings struct {
	URL string `json:"url"`
	TLS string `json:"tls"`
	// Directory is for the demo: the authority's certificate (ca.pem), the worker's
	// (worker.pem), and what was made for the run (environment). Only the user who has
	// started the program can read it, and it goes with the program.
	Directory string `json:"directory"`

	// made are the variables that the environment did not have.
	made map[string]string
}

func newSettings(url, secureURL string) *settings {
	s := &settings{URL: url, TLS: secureURL, made: map[string]string{}}
	s.otherwise("PUBLIC_URL", url)
	s.otherwise("WORKER_CLIENT_SECRET", rand.Text()+rand.Text())
	s.otherwise("MACHINES_ADMIN_PASSWORD", rand.Text())
	return s
}

func (s *settings) otherwise(name, value string) {
	if os.Getenv(name) == "" {
		s.made[name] = value
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

// lookup finds variables in the environment, and those that were made.
func (s *settings) lookup(name string) (string, bool) {
	if value, ok := s.made[name]; ok {
		return value, true
	}
	return os.LookupEnv(name)
}

// write leaves the files for the demo, and returns how the TLS listener is set.
func (s *settings) write(workerID string) (*tls.Config, error) {
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	config, err := ca.config()
	if err != nil {
		return nil, err
	}
	certificate, err := ca.client(workerID)
	if err != nil {
		return nil, err
	}
	pair, err := encode(certificate)
	if err != nil {
		return nil, err
	}
	if s.Directory, err = os.MkdirTemp("", "mandate-machines-"); err != nil {
		return nil, err
	}
	s.made["WORKER_CLIENT_ID"] = workerID
	var environment []byte
	for _, name := range slices.Sorted(maps.Keys(s.made)) {
		environment = fmt.Appendf(environment, "%s=%s\n", name, s.made[name])
	}
	for name, content := range map[string][]byte{
		"ca.pem":      pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.certificate.Raw}),
		"worker.pem":  pair,
		"environment": environment,
	} {
		if err := os.WriteFile(filepath.Join(s.Directory, name), content, 0o600); err != nil {
			return nil, err
		}
	}
	return config, nil
}

func (s *settings) print(w io.Writer) {
	fmt.Fprintf(w, `
A service for machines on %[1]s, and for client certificates on %[2]s.
See it all:   sh examples/machines/demo.sh %[1]s
Try yourself: URL=%[1]s TLS=%[2]s DIR=%[3]s; . $DIR/environment
Ctrl-C ends it and prints the audit trail.

`, s.URL, s.TLS, s.Directory)
}
