package oso_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testKey = "e_canary_0123456789"

type arg struct{ Type, ID string }

type body struct {
	ActorType    string `json:"actor_type"`
	ActorID      string `json:"actor_id"`
	Action       string `json:"action"`
	ResourceType string `json:"resource_type"`
	ResourceID   string `json:"resource_id"`
	ContextFacts []any  `json:"context_facts"`
}

// cloud stands for Oso Cloud: the four routes of its API, with a policy that says
// what oso.Policy writes, over the facts that it was told.
type cloud struct {
	*httptest.Server
	mu        sync.Mutex
	facts     map[string]bool
	hierarchy map[string][]string
	offset    int
	calls     []string
	offsets   []string
	// answer, when set, answers instead. It reports whether it has.
	answer func(w http.ResponseWriter, r *http.Request) bool
}

func newCloud(t *testing.T) *cloud {
	c := &cloud{facts: map[string]bool{}}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

func (c *cloud) instead(answer func(w http.ResponseWriter, r *http.Request) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = answer
}

func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.calls = append(c.calls, r.URL.Path)
	c.offsets = append(c.offsets, r.Header.Get("OsoOffset"))
	answer := c.answer
	c.mu.Unlock()
	if answer != nil && answer(w, r) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	fail := func(status int, message string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"message":%q}`, message)
	}
	if r.Method != http.MethodPost || r.Header.Get("Authorization") != "Bearer "+testKey || r.Header.Get("X-OsoApiVersion") != "0" ||
		r.Header.Get("Content-Type") != "application/json" {
		fail(401, "not a request of ours")
		return
	}
	if r.URL.Path == "/api/batch" {
		c.batch(w, r, fail)
		return
	}
	var q body
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&q); err != nil || q.ContextFacts == nil {
		fail(400, "bad body")
		return
	}
	var out any
	switch r.URL.Path {
	case "/api/authorize":
		out = map[string]bool{"allowed": c.may(q.ActorID, q.Action, q.ResourceType, q.ResourceID)}
	case "/api/actions":
		out = map[string][]string{"results": c.actions(q)}
	case "/api/list":
		out = map[string][]string{"results": c.list(q)}
	default:
		fail(404, "no such route")
		return
	}
	_ = json.NewEncoder(w).Encode(out)
}

func (c *cloud) batch(w http.ResponseWriter, r *http.Request, fail func(int, string)) {
	var ops []map[string][]struct {
		Predicate string
		Args      []arg
	}
	if err := json.NewDecoder(r.Body).Decode(&ops); err != nil {
		fail(400, "bad batch")
		return
	}
	for _, op := range ops {
		for kind, facts := range op {
			for _, f := range facts {
				key := f.Predicate
				for _, a := range f.Args {
					key += "|" + a.Type + ":" + a.ID
				}
				if kind == "inserts" {
					c.facts[key] = true
				} else {
					delete(c.facts, key)
				}
			}
		}
	}
	c.offset++
	w.Header().Set("OsoOffset", fmt.Sprint("o", c.offset))
	fmt.Fprint(w, `{}`)
}

// roles are those of the user on the app, over the hierarchy.
func (c *cloud) roles(user, app string) []string {
	var out []string
	for key := range c.facts {
		if role, ok := strings.CutPrefix(key, "has_role|User:"+user+"|String:"); ok {
			if role, ok := strings.CutSuffix(role, "|App:"+app); ok {
				out = append(out, role)
			}
		}
	}
	for i := 0; i < len(out); i++ {
		for _, more := range c.hierarchy[out[i]] {
			if !slices.Contains(out, more) {
				out = append(out, more)
			}
		}
	}
	return out
}

func (c *cloud) may(user, action, kind, id string) bool {
	resource := kind + ":" + id
	if role, ok := strings.CutPrefix(action, "role:"); ok && kind == "App" {
		return slices.Contains(c.roles(user, id), role)
	}
	if c.facts["has_permission|User:"+user+"|String:"+action+"|"+resource] {
		return true
	}
	for key := range c.facts {
		parts := strings.Split(key, "|")
		if parts[0] == "role_can" && parts[3] == "String:"+action && parts[4] == resource &&
			slices.Contains(c.roles(user, strings.TrimPrefix(parts[1], "App:")), strings.TrimPrefix(parts[2], "String:")) {
			return true
		}
	}
	return false
}

func (c *cloud) actions(q body) []string {
	out := []string{}
	for _, role := range c.roles(q.ActorID, q.ResourceID) {
		out = append(out, "role:"+role)
	}
	return append(out, "other")
}

// list returns the resources of the type on which the actor may.
func (c *cloud) list(q body) []string {
	out := []string{}
	for key := range c.facts {
		parts := strings.Split(key, "|")
		id, ok := strings.CutPrefix(parts[len(parts)-1], q.ResourceType+":")
		if ok && !slices.Contains(out, id) && c.may(q.ActorID, q.Action, q.ResourceType, id) {
			out = append(out, id)
		}
	}
	return out
}
