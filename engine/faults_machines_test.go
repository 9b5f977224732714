package engine_test

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/apikey"
	"github.com/mandate-auth/mandate/tokens/oauth2"
)

// machineOperations are the routes and calls of API keys, clients, signing keys and
// the audit trail.
func machineOperations() []operation {
	return slices.Concat(keyRoutes(), keyCalls(), clientRoutes(), oauthRoutes(), clientCalls(), ownOperations())
}

// aKey makes an API key of the account, which both instances remember.
func aKey(p *point) {
	created, err := p.healthy.app.APIKeys().Create(p.ctx, apikey.NewKey{UserID: p.id, Name: "key"})
	p.must(err)
	p.note = created
	p.keyWorks(created)
}

func (p *point) key() *apikey.Created { return p.note.(*apikey.Created) }

// keyWorks checks that a key is good, on both instances.
func (p *point) keyWorks(k *apikey.Created) {
	p.t.Helper()
	for _, w := range p.instances() {
		if who, err := w.app.Verify(p.ctx, k.Key); err != nil || who.ID != p.id || who.TokenID != k.ID {
			p.errorf("an API key that should be good: %v, %v", who, err)
		}
	}
}

// keyIsDead checks that a key is refused: on the instance that has revoked it at
// once, on the other soon.
func (p *point) keyIsDead(k *apikey.Created) {
	p.t.Helper()
	if _, err := p.app.Verify(p.ctx, k.Key); !errors.Is(err, tokens.ErrRevoked) {
		p.errorf("a revoked API key: %v", err)
		return
	}
	p.soon("the other instance refuses a revoked API key", func() bool {
		_, err := p.healthy.app.Verify(p.ctx, k.Key)
		return errors.Is(err, tokens.ErrRevoked)
	})
}

func theKeyIsDead(p *point, _ outcome) { p.keyIsDead(p.key()); p.alive(p.first) }

// keyIsMade checks that the key that was handed out is good, and that a refusal left
// at most one behind that nobody knows.
func (p *point) keyIsMade(k *apikey.Created) {
	p.t.Helper()
	p.keyWorks(k)
	page, err := p.healthy.app.APIKeys().List(p.ctx, p.id, apikey.ListOptions{})
	if err != nil || len(page.Keys) > 2 || !slices.ContainsFunc(page.Keys, func(own apikey.APIKey) bool { return own.ID == k.ID }) {
		p.errorf("the keys of the account: %+v, %v", page, err)
	}
}

func keyRoutes() []operation {
	return []operation{
		{
			name: "POST /auth/api-keys", steps: 4,
			call: func(p *point) outcome { return p.send("POST", "/auth/api-keys", obj("name", "key"), p.asFirst()) },
			settled: func(p *point, o outcome) {
				id, _ := o.response.at("api_key", "id").(string)
				p.keyIsMade(&apikey.Created{Key: o.response.text("key"), APIKey: apikey.APIKey{ID: id}})
			},
		},
		{
			name: "GET /auth/api-keys", prepare: aKey,
			call: func(p *point) outcome { return p.send("GET", "/auth/api-keys", nil, p.asFirst()) },
			settled: func(p *point, o outcome) {
				if list, _ := o.response.body["keys"].([]any); len(list) != 1 || strings.Contains(o.response.raw, p.key().Key) {
					p.errorf("the keys are %s", o.response.raw)
				}
			},
		},
		{
			name: "DELETE /auth/api-keys/{id}", steps: 2, prepare: aKey,
			call:    func(p *point) outcome { return p.send("DELETE", "/auth/api-keys/"+p.key().ID, nil, p.asFirst()) },
			settled: theKeyIsDead,
		},
	}
}

func keyCalls() []operation {
	return []operation{
		{
			name: "APIKeys.Create", steps: 3,
			call: call(func(p *point) error {
				created, err := p.app.APIKeys().Create(p.ctx, apikey.NewKey{UserID: p.id, Name: "key"})
				if err == nil {
					p.note = created
				}
				return err
			}),
			settled: func(p *point, _ outcome) { p.keyIsMade(p.key()) },
		},
		{
			name: "APIKeys.Get", prepare: aKey,
			call: call(func(p *point) error { _, err := p.app.APIKeys().Get(p.ctx, p.id, p.key().ID); return err }),
		},
		{
			name: "APIKeys.List", prepare: aKey,
			call: call(func(p *point) error {
				_, err := p.app.APIKeys().List(p.ctx, p.id, apikey.ListOptions{})
				return err
			}),
		},
		{
			name: "APIKeys.Verify", prepare: func(p *point) {
				created, err := p.healthy.app.APIKeys().Create(p.ctx, apikey.NewKey{UserID: p.id, Name: "key"})
				p.must(err)
				p.note = created
			},
			call:    call(func(p *point) error { _, err := p.app.APIKeys().Verify(p.ctx, p.key().Key); return err }),
			settled: func(p *point, _ outcome) { p.keyWorks(p.key()) },
		},
		{
			name: "APIKeys.VerifyNow", prepare: aKey,
			call:    call(func(p *point) error { _, err := p.app.APIKeys().VerifyNow(p.ctx, p.key().Key); return err }),
			settled: func(p *point, _ outcome) { p.keyWorks(p.key()) },
		},
		{
			name: "APIKeys.Revoke", steps: 2, prepare: aKey,
			call:    call(func(p *point) error { return p.app.APIKeys().Revoke(p.ctx, p.id, p.key().ID, "test") }),
			settled: theKeyIsDead,
		},
		{
			name: "APIKeys.RevokeAll", steps: 3, prepare: aKey,
			call:    call(func(p *point) error { return p.app.APIKeys().RevokeAll(p.ctx, p.id, "test") }),
			settled: theKeyIsDead,
		},
		{
			name: "APIKeys.Sweep", prepare: aKey,
			call:    call(func(p *point) error { _, err := p.app.APIKeys().Sweep(p.ctx); return err }),
			settled: func(p *point, _ outcome) { p.keyWorks(p.key()) },
		},
		{
			name: "Blacklist.AddAPIKey", prepare: aKey,
			call: call(func(p *point) error { return p.app.Blacklist().AddAPIKey(p.ctx, p.key().ID, "test") }),
			settled: func(p *point, _ outcome) {
				if found, _, err := p.healthy.app.Blacklist().Contains(p.ctx, tokens.RevokedAPIKey, p.key().ID); !found || err != nil {
					p.errorf("a revocation that was stored: %t, %v", found, err)
				}
				p.keyWorks(p.key()) // it is looked up again, and is good
			},
		},
	}
}

// machine is a client as whoever runs it knows it.
type machine struct {
	id, name, secret string
	// token is an access token.
	token string
	// second is another secret, where there is one, and first the id of the first.
	second, first string
}

// aClient makes a client, which both instances remember.
func aClient(p *point) {
	created, err := p.healthy.app.Clients().Create(p.ctx, oauth2.NewClient{Name: "client" + p.unique(), Scopes: []string{"read"}})
	p.must(err)
	m := &machine{id: created.ID, name: created.Name, secret: created.Secret, first: created.Secrets[0].ID}
	p.note = m
	p.secretWorks(m.secret)
	m.token, _, err = p.healthy.app.IssueClientToken(p.ctx, m.id)
	p.must(err)
	p.tokenWorks(m.token)
}

// anUnseenClient makes a client that the instance has not met.
func anUnseenClient(p *point) {
	created, err := p.healthy.app.Clients().Create(p.ctx, oauth2.NewClient{Name: "client" + p.unique()})
	p.must(err)
	p.note = &machine{id: created.ID, name: created.Name, secret: created.Secret}
}

// anotherSecret is aClient with two secrets.
func anotherSecret(p *point) {
	aClient(p)
	var err error
	p.client().second, err = p.healthy.app.Clients().Rotate(p.ctx, p.client().id)
	p.must(err)
}

func (p *point) client() *machine { return p.note.(*machine) }

func authenticates(p *point, w *world, secret string) error {
	_, err := w.app.Clients().Authenticate(p.ctx, p.client().id, secret)
	return err
}

// secretWorks checks that a secret of the client is accepted: at once by the
// instance that met the fault, soon by the other.
func (p *point) secretWorks(secret string) {
	p.t.Helper()
	if err := authenticates(p, p.world, secret); err != nil {
		p.errorf("a secret that should be good: %v", err)
		return
	}
	p.soon("the other instance accepts the secret", func() bool { return authenticates(p, p.healthy, secret) == nil })
}

func (p *point) secretIsDead(secret string) {
	p.t.Helper()
	if err := authenticates(p, p.world, secret); !errors.Is(err, oauth2.ErrInvalidClient) {
		p.errorf("a secret that has ended: %v", err)
		return
	}
	p.soon("the other instance refuses a secret that has ended", func() bool {
		return errors.Is(authenticates(p, p.healthy, secret), oauth2.ErrInvalidClient)
	})
}

// tokenWorks checks that a client's access token is good, on both instances.
func (p *point) tokenWorks(token string) {
	p.t.Helper()
	for _, w := range p.instances() {
		if who, err := w.app.Verify(p.ctx, token); err != nil || who.ID != p.client().id || who.Kind != authz.KindService {
			p.errorf("a client's token that should be good: %v, %v", who, err)
		}
	}
}

func (p *point) tokenIsDead(token string) {
	p.t.Helper()
	if _, err := p.app.Verify(p.ctx, token); !errors.Is(err, tokens.ErrRevoked) {
		p.errorf("a client's token that has ended: %v", err)
		return
	}
	p.revokedElsewhere(&session{access: token})
}

// clientIsDead checks that nothing of the client is accepted any more.
func clientIsDead(p *point, _ outcome) {
	p.secretIsDead(p.client().secret)
	p.tokenIsDead(p.client().token)
}

func clientIsGone(p *point, o outcome) {
	clientIsDead(p, o)
	if _, err := p.healthy.app.Clients().Get(p.ctx, p.client().id); !errors.Is(err, oauth2.ErrNotFound) {
		p.errorf("a deleted client: %v", err)
	}
}

// clientIsMade checks that the client that was made is good, and the only one of
// its name.
func (p *point) clientIsMade(id, secret string) {
	p.t.Helper()
	p.client().id = id
	p.secretWorks(secret)
	if _, err := p.healthy.app.Clients().Create(p.ctx, oauth2.NewClient{Name: p.client().name}); !errors.Is(err, oauth2.ErrNameTaken) {
		p.errorf("another client of the name: %v", err)
	}
}

// aName chooses the name of a client that is to be made.
func aName(p *point) { p.note = &machine{name: "client" + p.unique()} }

// rotated checks that a rotation has taken nothing away: who was refused still has
// the secret of before, and only what was handed out is beside it.
func (p *point) rotated(secret string) {
	p.t.Helper()
	p.secretWorks(secret)
	p.secretWorks(p.client().secret)
	p.tokenWorks(p.client().token)
	c, err := p.healthy.app.Clients().Get(p.ctx, p.client().id)
	if err != nil || len(c.Secrets) != 2 {
		p.errorf("the secrets are %+v, %v, want 2", c, err)
	}
}

// firstSecretIsDead checks that what the first secret could do is over.
func firstSecretIsDead(p *point, o outcome) {
	clientIsDead(p, o)
	p.secretWorks(p.client().second)
}

// rescoped checks that the scopes are others, and that no token has those of before.
func rescoped(p *point, _ outcome) {
	p.tokenIsDead(p.client().token)
	c, err := p.healthy.app.Clients().Get(p.ctx, p.client().id)
	if err != nil || !slices.Equal(c.Scopes, []string{"write"}) {
		p.errorf("the client is %+v, %v", c, err)
	}
	p.secretWorks(p.client().secret)
}

// notFound: it was gone before the answer was lost.
func notFound(_ *point, o outcome) bool { return o.is("not_found") }

// clientRoutes are the routes of administration, asked by an admin.
func clientRoutes() []operation {
	ask := func(method, path string, body any) func(p *point) outcome {
		return func(p *point) outcome {
			path := path
			if m, ok := p.note.(*machine); ok {
				path = strings.NewReplacer("{id}", m.id, "{secret}", m.first).Replace(path)
			}
			return p.send(method, path, body, p.asFirst())
		}
	}
	by := func(prepare func(p *point)) func(p *point) {
		return func(p *point) { asAdmin(p); prepare(p) }
	}
	const one = "/auth/admin/clients/{id}"
	return []operation{
		{name: "GET /auth/admin/clients", prepare: by(anUnseenClient), call: ask("GET", "/auth/admin/clients?limit=1", nil)},
		{name: "GET " + one, prepare: by(anUnseenClient), call: ask("GET", one, nil)},
		{
			name: "POST /auth/admin/clients", prepare: by(aName),
			call: func(p *point) outcome {
				return p.send("POST", "/auth/admin/clients", obj("name", p.client().name), p.asFirst())
			},
			settled: func(p *point, o outcome) {
				id, _ := o.response.at("client", "id").(string)
				p.clientIsMade(id, o.response.text("client_secret"))
			},
		},
		{
			name: "PATCH " + one, steps: 3, prepare: by(aClient),
			call: ask("PATCH", one, obj("scopes", []string{"write"})), settled: rescoped,
		},
		{
			name: "PATCH " + one + ": disabled", steps: 3, prepare: by(aClient),
			call: ask("PATCH", one, obj("status", "disabled")), settled: clientIsDead,
		},
		{
			name: "DELETE " + one, steps: 5, prepare: by(aClient),
			call: ask("DELETE", one, nil), excused: notFound, settled: clientIsGone,
		},
		{
			name: "POST " + one + "/secrets", steps: 2, prepare: by(aClient),
			call:    ask("POST", one+"/secrets", nil),
			settled: func(p *point, o outcome) { p.rotated(o.response.text("client_secret")) },
		},
		{
			name: "DELETE " + one + "/secrets/{secret}", steps: 2, prepare: by(anotherSecret),
			call: ask("DELETE", one+"/secrets/{secret}", nil), settled: firstSecretIsDead,
		},
	}
}

// oauthRoutes are those whose errors are those of RFC 6749: what is unavailable
// elsewhere is temporarily_unavailable there.
func oauthRoutes() []operation {
	ask := func(path string, form func(m *machine) string) func(p *point) outcome {
		return func(p *point) outcome {
			o := p.send("POST", path, form(p.client()), asForm, basicAuth(p.client().id, p.client().secret))
			o.session = nil // not one of the account
			if o.response.text("error") == oauth2.ErrTemporarilyUnavailable.Code {
				o.response.body["code"] = "unavailable"
			}
			return o
		}
	}
	aToken := func(p *point) {
		anUnseenClient(p)
		var err error
		p.client().token, _, err = p.healthy.app.IssueClientToken(p.ctx, p.client().id)
		p.must(err)
	}
	return []operation{
		{
			name: "POST /auth/oauth2/token", prepare: anUnseenClient,
			call:    ask("/auth/oauth2/token", func(*machine) string { return "grant_type=client_credentials" }),
			settled: func(p *point, o outcome) { p.tokenWorks(o.response.text("access_token")) },
		},
		{
			name: "POST /auth/oauth2/introspect", prepare: aToken,
			call: ask("/auth/oauth2/introspect", func(m *machine) string { return "token=" + m.token }),
			settled: func(p *point, o outcome) {
				if o.response.body["active"] != true {
					p.errorf("introspected: %s", o.response.raw)
				}
			},
		},
		{
			name: "POST /auth/oauth2/revoke", steps: 2, prepare: aToken,
			call:    ask("/auth/oauth2/revoke", func(m *machine) string { return "token=" + m.token }),
			settled: func(p *point, _ outcome) { p.tokenIsDead(p.client().token); p.secretWorks(p.client().secret) },
		},
	}
}

func clientCalls() []operation {
	clients := func(p *point) *oauth2.Store { return p.app.Clients() }
	return append(clientReads(), []operation{
		{
			name: "Clients.Create", prepare: aName,
			call: call(func(p *point) error {
				created, err := clients(p).Create(p.ctx, oauth2.NewClient{Name: p.client().name})
				if err == nil {
					p.client().id, p.client().secret = created.ID, created.Secret
				}
				return err
			}),
			settled: func(p *point, _ outcome) { p.clientIsMade(p.client().id, p.client().secret) },
		},
		{
			name: "Clients.Ensure", steps: 4, prepare: aName,
			call: call(func(p *point) error {
				c, err := clients(p).Ensure(p.ctx, oauth2.Initial{Name: p.client().name, Secret: engine.NewSecret(initialSecret)})
				if err == nil {
					p.client().id = c.ID
				}
				return err
			}),
			settled: func(p *point, _ outcome) { p.clientIsMade(p.client().id, initialSecret) },
		},
		{
			name: "Clients.Disable", steps: 2, prepare: aClient,
			call: call(func(p *point) error { return clients(p).Disable(p.ctx, p.client().id, "test") }), settled: clientIsDead,
		},
		{
			name: "Clients.Enable", steps: 2,
			prepare: func(p *point) { aClient(p); p.must(p.healthy.app.Clients().Disable(p.ctx, p.client().id, "test")) },
			call:    call(func(p *point) error { return clients(p).Enable(p.ctx, p.client().id) }),
			settled: func(p *point, _ outcome) { p.secretWorks(p.client().secret); p.tokenIsDead(p.client().token) },
		},
		{
			name: "Clients.SetScopes", steps: 2, prepare: aClient,
			call: call(func(p *point) error { return clients(p).SetScopes(p.ctx, p.client().id, []string{"write"}) }), settled: rescoped,
		},
		{
			name: "Clients.Rotate", steps: 2, prepare: aClient,
			call: call(func(p *point) (err error) {
				p.client().second, err = clients(p).Rotate(p.ctx, p.client().id)
				return err
			}),
			settled: func(p *point, _ outcome) { p.rotated(p.client().second) },
		},
		{
			name: "Clients.RemoveSecret", steps: 2, prepare: anotherSecret,
			call:    call(func(p *point) error { return clients(p).RemoveSecret(p.ctx, p.client().id, p.client().first) }),
			settled: firstSecretIsDead,
		},
		{
			name: "Clients.Delete", steps: 3, prepare: aClient,
			call: call(func(p *point) error { return clients(p).Delete(p.ctx, p.client().id) }), excused: notFound, settled: clientIsGone,
		},
		{
			name: "App.DeleteClient", steps: 5, prepare: func(p *point) {
				aClient(p)
				p.must(p.app.Authz().AddRules(p.ctx, rule(p.client().id, "mine", "read")))
			},
			call: call(func(p *point) error { return p.app.DeleteClient(p.ctx, p.client().id) }), excused: notFound,
			settled: func(p *point, o outcome) {
				clientIsGone(p, o)
				if has, err := p.healthy.app.Authz().HasRule(p.ctx, rule(p.client().id, "mine", "read")); has || err != nil {
					p.errorf("the rules of a deleted client: %t, %v", has, err)
				}
			},
		},
		{
			name: "Blacklist.AddClient", prepare: aClient,
			call: call(func(p *point) error {
				return p.app.Blacklist().AddClient(p.ctx, p.client().id, time.Now().Unix()+3600, "test")
			}),
			settled: func(p *point, _ outcome) { p.tokenIsDead(p.client().token) },
		},
	}...)
}

func clientReads() []operation {
	return []operation{
		{
			name: "Clients.Authenticate", prepare: anUnseenClient,
			call: call(func(p *point) error { return authenticates(p, p.world, p.client().secret) }),
		},
		{
			name: "Clients.AuthenticateNow", prepare: aClient,
			call: call(func(p *point) error {
				_, err := p.app.Clients().AuthenticateNow(p.ctx, p.client().id, p.client().secret)
				return err
			}),
		},
		{
			name: "Clients.Get", prepare: anUnseenClient,
			call: call(func(p *point) error { _, err := p.app.Clients().Get(p.ctx, p.client().id); return err }),
		},
		{
			name: "Clients.GetByName", prepare: anUnseenClient,
			call: call(func(p *point) error { _, err := p.app.Clients().GetByName(p.ctx, p.client().name); return err }),
		},
		{
			name: "Clients.List", prepare: anUnseenClient,
			call: call(func(p *point) error {
				_, err := p.app.Clients().List(p.ctx, oauth2.ListOptions{Limit: 1})
				return err
			}),
		},
		{
			name: "App.IssueClientToken", prepare: anUnseenClient,
			call: call(func(p *point) (err error) {
				p.client().token, _, err = p.app.IssueClientToken(p.ctx, p.client().id)
				return err
			}),
			settled: func(p *point, _ outcome) { p.tokenWorks(p.client().token) },
		},
	}
}
