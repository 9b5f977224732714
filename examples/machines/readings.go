package main

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine"
)

// maxReadings is how many are kept.
const maxReadings = 1000

// readings are the service's data. A real one keeps them in its database.
type readings struct {
	mu     sync.Mutex
	all    []reading
	offset float64
}

type reading struct {
	// By is the client, or the owner of the API key, that has sent it.
	By         string           `json:"by"`
	Credential authz.Credential `json:"credential"`
	Value      float64          `json:"value"`
	At         time.Time        `json:"at"`
}

// add keeps a reading. That a machine sends it, and may, has been seen to by the
// path's rule.
func (s *readings) add(w http.ResponseWriter, r *http.Request) {
	var in struct{ Value *float64 }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10)).Decode(&in); err != nil || in.Value == nil {
		http.Error(w, `send {"value": 21.5}`, http.StatusUnprocessableEntity)
		return
	}
	p := engine.PrincipalFrom(r.Context())
	s.mu.Lock()
	defer s.mu.Unlock()
	added := reading{By: p.ID, Credential: p.Credential, Value: *in.Value + s.offset, At: time.Now().UTC()}
	s.all = append(s.all, added)
	if len(s.all) > maxReadings {
		s.all = s.all[1:]
	}
	reply(w, http.StatusCreated, added)
}

func (s *readings) list(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reply(w, http.StatusOK, map[string]any{"readings": append([]reading{}, s.all...)})
}

// calibrate changes what is added to the readings that come.
func (s *readings) calibrate(w http.ResponseWriter, r *http.Request) {
	var in struct{ Offset *float64 }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10)).Decode(&in); err != nil || in.Offset == nil {
		http.Error(w, `send {"offset": -0.5}`, http.StatusUnprocessableEntity)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offset = *in.Offset
	w.WriteHeader(http.StatusNoContent)
}

func (s *readings) report(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	by := map[authz.Credential]int{}
	for _, one := range s.all {
		by[one.Credential]++
	}
	reply(w, http.StatusOK, map[string]any{"readings": len(s.all), "by_credential": by})
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
