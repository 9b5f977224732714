// Package oso asks Oso Cloud what principals may do: a client of its HTTP API as
// a provider of authorization. Every decision is a request to it; nothing is
// cached, and whatever it does not answer in time is refused.
//
// What Mandate tells it, in facts:
//
//	has_role(User:usr_…, String:editor, App:shop)                    a role of a user
//	has_permission(User:usr_…, String:read, Object:shop/documents)   a rule for a user
//	role_can(App:shop, String:editor, String:read, Object:shop/documents)   a rule for a role
//
// Apps share an environment of Oso Cloud and stay apart: roles are roles on the app,
// and an object of Mandate is an Object whose id begins with the slug. Guests are
// User:<slug>/anonymous. An object that is written "Type:id", with a type that
// begins with a capital letter, is the service's own resource of that type, of which
// the service tells Oso Cloud itself. Such a resource belongs to no app: where several
// share an environment, their ids have to differ.
//
// The environment needs a policy that understands these facts: [Policy] writes one,
// with the roles and their hierarchy. It can be extended at will.
//
// The API cannot list facts in bulk, so [Provider.Rules], [Provider.Members] and
// [Provider.Assigned] are [authz.ErrUnsupported]: look at them in Oso Cloud.
// Permissions are those of the actions that are known: Config.Actions, and what
// this instance has written rules about.
package oso

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/tokens/secret"
)

// DefaultURL is the address of Oso Cloud.
const DefaultURL = "https://cloud.osohq.com"

// Config configures a [Provider].
type Config struct {
	// App is the slug. Required.
	App string
	// URL is the address below which /api is. It begins with https://, unless it is
	// on the loopback interface. Default [DefaultURL].
	URL string
	// APIKey is the key of the environment. Required.
	APIKey secret.Value
	// Roles are the roles of the app, which [Provider.Forget] takes away.
	Roles []string
	// Actions and ResourceTypes are what [Provider.Permissions] asks about, besides
	// the type Object and the actions of rules that were made here.
	Actions, ResourceTypes []string
	// Timeout bounds a call with all its repetitions. Default 2 s.
	Timeout time.Duration
	// Transport sends the requests. Default one of its own, with at most 64 idle
	// connections.
	Transport http.RoundTripper
}

// Provider decides for one app. It implements [authz.Editor] and is safe for
// concurrent use.
type Provider struct {
	client *client
	config Config

	mu      sync.Mutex
	actions map[string]struct{}
}

var _ authz.Editor = (*Provider)(nil)

// New returns the provider that config describes. It asks nothing: whether Oso Cloud
// answers shows at the first call.
func New(config Config) (*Provider, error) {
	if err := authz.CheckValue("app", config.App); err != nil {
		return nil, fmt.Errorf("oso: %w", err)
	}
	base, err := checkURL(cmp.Or(config.URL, DefaultURL))
	if err != nil {
		return nil, fmt.Errorf("oso: %w", err)
	}
	if config.APIKey.IsZero() {
		return nil, errors.New("oso: an API key is required")
	}
	if err := checkKey(config.APIKey); err != nil {
		return nil, fmt.Errorf("oso: %w", err)
	}
	for _, role := range config.Roles {
		if err := authz.CheckRole(role); err != nil {
			return nil, fmt.Errorf("oso: %w", err)
		}
	}
	if config.Timeout <= 0 {
		config.Timeout = 2 * time.Second
	}
	p := &Provider{client: newClient(base, config), config: config, actions: map[string]struct{}{}}
	p.learn(config.Actions...)
	return p, nil
}

// checkURL returns the address without a slash at its end.
func checkURL(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(text, "?#") {
		return "", errors.New("the URL has to be https://host, without user, query and fragment")
	}
	ip := net.ParseIP(u.Hostname())
	loopback := u.Hostname() == "localhost" || (ip != nil && ip.IsLoopback())
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback) {
		return "", errors.New("the URL has to begin with https://: the key would travel in the clear")
	}
	return strings.TrimSuffix(text, "/"), nil
}

// Close gives up idle connections. Calls that are under way finish.
func (p *Provider) Close(context.Context) error {
	p.client.http.CloseIdleConnections()
	return nil
}

// learn remembers actions that permissions are asked about, as many as there is room
// for.
func (p *Provider) learn(actions ...string) {
	const room = 1000
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, action := range actions {
		if len(p.actions) < room {
			p.actions[action] = struct{}{}
		}
	}
}

func (p *Provider) known() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.actions))
}

// query is the body of every question. What does not apply is left out.
type query struct {
	ActorType    string `json:"actor_type"`
	ActorID      string `json:"actor_id"`
	Action       string `json:"action,omitempty"`
	ResourceType string `json:"resource_type"`
	ResourceID   string `json:"resource_id,omitempty"`
	ContextFacts []any  `json:"context_facts"`
}

func (p *Provider) ask(subject string, action string, resource value) query {
	actor := p.user(subject)
	return query{
		ActorType: actor.Type, ActorID: actor.ID, Action: action, ResourceType: resource.Type, ResourceID: resource.ID,
		ContextFacts: []any{},
	}
}

// Authorize implements [authz.Provider].
func (p *Provider) Authorize(ctx context.Context, r authz.Request) (authz.Decision, error) {
	if r.App != p.config.App {
		return authz.Decision{}, fmt.Errorf("oso: a request of app %q at the provider of app %q", r.App, p.config.App)
	}
	if r.Subject == "" {
		return authz.Decision{Reason: authz.ReasonNoRule}, ctx.Err()
	}
	allowed, err := p.client.allowed(ctx, p.ask(r.Subject, r.Action, p.object(r.Object)))
	switch {
	case err != nil:
		return authz.Decision{}, err
	case !allowed:
		return authz.Decision{Reason: authz.ReasonNoRule}, nil
	default:
		return authz.Decision{Allowed: true, Reason: authz.ReasonAllowed}, nil
	}
}

// rolePrefix is what the actions on an app begin with that stand for having a role.
const rolePrefix = "role:"

// HasRole implements [authz.Provider].
func (p *Provider) HasRole(ctx context.Context, subject string, roles ...string) (bool, error) {
	if subject == "" || len(roles) == 0 {
		return false, ctx.Err()
	}
	if len(roles) > 1 {
		has, err := p.Roles(ctx, subject)
		return err == nil && slices.ContainsFunc(has, func(r string) bool { return slices.Contains(roles, r) }), err
	}
	return p.client.allowed(ctx, p.ask(subject, rolePrefix+roles[0], p.app()))
}

// Roles implements [authz.Provider].
func (p *Provider) Roles(ctx context.Context, subject string) ([]string, error) {
	if subject == "" {
		return nil, ctx.Err()
	}
	actions, err := p.client.list(ctx, "/actions", p.ask(subject, "", p.app()))
	if err != nil {
		return nil, err
	}
	var roles []string
	for _, action := range actions {
		if role, ok := strings.CutPrefix(action, rolePrefix); ok {
			roles = append(roles, role)
		}
	}
	slices.Sort(roles)
	return slices.Compact(roles), nil
}

// Permissions implements [authz.Provider]: what is known of the subject's
// permissions, see the package's documentation. Each known action of each type is a
// question of its own.
func (p *Provider) Permissions(ctx context.Context, subject string) ([]authz.Permission, error) {
	if subject == "" {
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	var out []authz.Permission
	for _, kind := range append([]string{typeObject}, p.config.ResourceTypes...) {
		for _, action := range p.known() {
			ids, err := p.client.list(ctx, "/list", p.ask(subject, action, value{Type: kind}))
			if err != nil {
				return nil, err
			}
			for _, id := range ids {
				if object, mine := p.name(value{kind, id}); mine {
					out = append(out, authz.Permission{Object: object, Action: action})
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b authz.Permission) int {
		return cmp.Or(strings.Compare(a.Object, b.Object), strings.Compare(a.Action, b.Action))
	})
	return slices.Compact(out), nil
}
