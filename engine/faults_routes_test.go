package engine_test

import (
	"net/http"
	"time"

	"go.mongodb.org/mongo-driver/bson"
)

// routeOperations are the routes.
func routeOperations() []operation {
	return append(signInRoutes(), accountRoutes()...)
}

func signInRoutes() []operation {
	return []operation{
		{
			name: "POST /auth/register", steps: 4,
			prepare: func(p *point) { p.email = "new" + p.unique() + "@example.com" },
			call: func(p *point) outcome {
				return p.send("POST", "/auth/register", obj("email", p.email, "password", password))
			},
			excused: emailTaken,
			settled: func(p *point, _ outcome) { p.registered() },
		},
		{
			name: "POST /auth/login", steps: 7,
			call:    func(p *point) outcome { return p.send("POST", "/auth/login", p.credentials()) },
			settled: func(p *point, o outcome) { p.alive(o.session); p.alive(p.first) },
		},
		{
			name: "POST /auth/login: pushing a session out", steps: 8,
			prepare: fullHead,
			call:    func(p *point) outcome { return p.send("POST", "/auth/login", p.credentials()) },
			settled: func(p *point, o outcome) {
				p.alive(o.session)
				// A refused sign-in may have pushed it out and not got to its access
				// token: that dies when somebody comes with the refresh token.
				p.spent(p.first)
				p.dead(p.first)
			},
		},
		{
			name: "POST /auth/login: from a known device", steps: 8,
			prepare: func(p *point) {
				p.note = p.answer(p.healthy, "POST", "/auth/login", p.credentials()).response.text("device_token")
			},
			call: func(p *point) outcome {
				return p.send("POST", "/auth/login", with(p.credentials(), "device_token", p.note))
			},
			settled: sessionIsGood,
		},
		{
			name: "POST /auth/login: in place of a session in cookies", steps: 9, prepare: inCookies,
			call: func(p *point) outcome {
				return p.send("POST", "/auth/login", with(p.credentials(), "transport", "cookie"), p.jar, xhr)
			},
			settled: func(p *point, _ outcome) { p.dead(p.third); p.alive(p.second) },
		},
		{
			name: "POST /auth/login: wrong password", steps: 3, want: "invalid_credentials",
			call: func(p *point) outcome {
				return p.send("POST", "/auth/login", with(p.credentials(), "password", "wrong"))
			},
			settled: func(p *point, _ outcome) { p.enters(password, "") },
		},
		{
			name: "POST /auth/login: unknown address", steps: 3, want: "invalid_credentials",
			prepare: func(p *point) { p.email = "nobody" + p.unique() + "@example.com" },
			call:    func(p *point) outcome { return p.send("POST", "/auth/login", p.credentials()) },
		},
		{
			name: "POST /auth/login: disabled", steps: 3, want: "account_disabled",
			prepare: func(p *point) { p.must(p.healthy.app.Users().Disable(p.ctx, p.id, "test")) },
			call:    func(p *point) outcome { return p.send("POST", "/auth/login", p.credentials()) },
		},
		{
			name: "POST /auth/anonymous", steps: 5,
			prepare: newDevice,
			call:    func(p *point) outcome { return p.send("POST", "/auth/anonymous", obj("device_id", p.note)) },
			settled: sameGuest,
		},
		{
			name: "POST /auth/anonymous: known device", steps: 4,
			prepare: func(p *point) {
				newDevice(p)
				p.answer(p.healthy, "POST", "/auth/anonymous", obj("device_id", p.note))
			},
			call:    func(p *point) outcome { return p.send("POST", "/auth/anonymous", obj("device_id", p.note)) },
			settled: sameGuest,
		},
		{
			name: "POST /auth/demo", steps: 5,
			prepare: newDevice,
			call:    func(p *point) outcome { return p.send("POST", "/auth/demo", obj("device_id", p.note)) },
			settled: sessionIsGood,
		},
	}
}

func accountRoutes() []operation {
	return append(refreshRoutes(), []operation{
		{
			name: "POST /auth/logout", steps: 3,
			call:    func(p *point) outcome { return p.send("POST", "/auth/logout", obj("refresh_token", p.first.refresh)) },
			settled: firstIsDead,
		},
		{
			name: "POST /auth/logout: by access token", steps: 3,
			call:    func(p *point) outcome { return p.send("POST", "/auth/logout", nil, p.asFirst()) },
			settled: firstIsDead,
		},
		{
			name: "POST /auth/logout: by cookies", steps: 3, prepare: inCookies,
			call:    func(p *point) outcome { return p.send("POST", "/auth/logout", nil, p.jar, xhr) },
			settled: func(p *point, _ outcome) { p.dead(p.third); p.alive(p.second) },
		},
		{
			name: "PATCH /auth/me", steps: 2,
			call: func(p *point) outcome {
				return p.send("PATCH", "/auth/me", obj("profile", obj("nickname", "Ada")), p.asFirst())
			},
			settled: func(p *point, _ outcome) { p.profile("nickname", "Ada") },
		},
		{
			name: "POST /auth/password", steps: 7,
			call: func(p *point) outcome { return p.changeByRoute(password) },
			again: func(p *point) outcome {
				// The answer may have been lost after the password had changed.
				if o := p.changeByRoute(password); !o.is("invalid_credentials") {
					return o
				}
				return p.changeByRoute(newPassword)
			},
			settled: passwordChanged,
		},
		{
			name: "POST /auth/password: wrong current password", steps: 3, want: "invalid_credentials",
			call:    func(p *point) outcome { return p.changeByRoute("wrong") },
			settled: func(p *point, _ outcome) { p.alive(p.second); p.enters(password, "") },
		},
		{
			name: "GET /auth/sessions", steps: 2,
			call: func(p *point) outcome { return p.send("GET", "/auth/sessions", nil, p.asFirst()) },
			settled: func(p *point, o outcome) {
				if list, _ := o.response.body["sessions"].([]any); len(list) != 2 {
					p.errorf("sessions: %s, want 2", o.response.raw)
				}
			},
		},
		{
			name: "DELETE /auth/sessions/{id}", steps: 3,
			call: func(p *point) outcome {
				return p.send("DELETE", "/auth/sessions/"+p.second.id, nil, p.asFirst())
			},
			settled: secondIsDead,
		},
		{
			name: "DELETE /auth/sessions/{id}: its own", steps: 3,
			call: func(p *point) outcome {
				return p.send("DELETE", "/auth/sessions/"+p.first.id, nil, p.asFirst())
			},
			excused: tokenRevoked, settled: firstIsDead,
		},
		{
			name: "DELETE /auth/sessions", steps: 5,
			call:    func(p *point) outcome { return p.send("DELETE", "/auth/sessions", nil, p.asFirst()) },
			settled: secondIsDead,
		},
		{
			name: "DELETE /auth/sessions: all", steps: 3,
			call:    func(p *point) outcome { return p.send("DELETE", "/auth/sessions?all=true", nil, p.asFirst()) },
			excused: tokenRevoked, settled: bothAreDead,
		},
	}...)
}

func refreshRoutes() []operation {
	return []operation{
		{
			name: "POST /auth/refresh", steps: 3,
			call: refreshFirst,
			settled: func(p *point, o outcome) {
				p.alive(o.session)
				p.alive(p.second)
			},
		},
		{
			name: "POST /auth/refresh: in cookies", steps: 3, prepare: inCookies,
			call: func(p *point) outcome { return p.send("POST", "/auth/refresh", nil, p.jar, xhr) },
		},
		{
			name: "POST /auth/refresh: reused", steps: 6, want: "refresh_reused",
			prepare: func(p *point) {
				p.note = p.first.refresh
				p.alive(p.first)
				p.alive(p.first) // two generations on
			},
			call: func(p *point) outcome {
				return p.send("POST", "/auth/refresh", obj("refresh_token", p.note))
			},
			// The session had ended before the answer was lost.
			excused: func(_ *point, o outcome) bool { return o.is("session_expired") },
			settled: firstIsDead,
		},
		{
			name: "POST /auth/refresh: ended half way", steps: 5, want: "session_expired",
			// Whoever ended it died before the blacklist knew.
			prepare: func(p *point) {
				p.set("user_sessions", p.first.id, bson.M{"state": "ended"})
			},
			call: refreshFirst, settled: firstIsDead,
		},
		{
			name: "POST /auth/refresh: disabled half way", steps: 6, want: "session_expired",
			// Whoever disabled the account died before any session had ended.
			prepare: func(p *point) { p.set("users", p.id, bson.M{"status": "disabled"}) },
			call:    refreshFirst,
			settled: func(p *point, _ outcome) { p.dead(p.first) },
		},
	}
}

func (p *point) credentials() map[string]any { return obj("email", p.email, "password", password) }

func (p *point) changeByRoute(current string) outcome {
	return p.send("POST", "/auth/password", obj("current_password", current, "new_password", newPassword), p.asFirst())
}

// fullHead gives the account as many sessions as it may have. first is the
// oldest: without that, sessions of one millisecond go by their ids.
func fullHead(p *point) {
	p.begin()
	p.begin()
	var head struct {
		Live []bson.M `bson:"live"`
	}
	heads := p.healthy.db.Collection("session_heads")
	p.must(heads.FindOne(p.ctx, bson.M{"_id": p.id}).Decode(&head))
	for _, l := range head.Live {
		if l["sid"] == p.first.id {
			l["at"] = time.Now().Add(-time.Hour)
		}
	}
	p.set("session_heads", p.id, bson.M{"live": head.Live})
}

// set changes a document behind the back of all instances.
func (p *point) set(collection, id string, set bson.M) {
	_, err := p.healthy.db.Collection(collection).UpdateByID(p.ctx, id, bson.M{"$set": set})
	p.must(err)
}

func refreshFirst(p *point) outcome {
	return p.send("POST", "/auth/refresh", obj("refresh_token", p.first.refresh))
}

// emailTaken: the account had been made before the answer was lost.
func emailTaken(_ *point, o outcome) bool { return o.is("email_taken") }

// tokenRevoked: the sessions had ended before the answer was lost, that of the
// caller with them.
func tokenRevoked(_ *point, o outcome) bool { return o.is("token_revoked") }

func newDevice(p *point) { p.note = "0123456789abcdef0123456789abcdef" + p.unique() }

// sameGuest checks that the device has one guest, however often it asked.
func sameGuest(p *point, o outcome) {
	p.alive(o.session)
	again := p.answer(p.healthy, "POST", "/auth/anonymous", obj("device_id", p.note)).response
	if again.status != http.StatusOK || again.at("user", "id") != o.response.at("user", "id") {
		p.errorf("the device has another guest now: %s, before %v", again.raw, o)
	}
}

func (p *point) profile(key string, want any) {
	p.t.Helper()
	u, err := p.healthy.app.Users().Get(p.ctx, p.id)
	if err != nil || u.Profile[key] != want {
		p.errorf("the profile is %v, %v", u, err)
	}
}

func sessionIsGood(p *point, o outcome) { p.alive(o.session) }
func firstIsDead(p *point, _ outcome)   { p.dead(p.first); p.alive(p.second) }
func secondIsDead(p *point, _ outcome)  { p.dead(p.second); p.alive(p.first) }
func bothAreDead(p *point, _ outcome)   { p.dead(p.first); p.dead(p.second) }

// passwordChanged checks that the session of the change lives and nothing else of
// before does.
func passwordChanged(p *point, _ outcome) {
	secondIsDead(p, outcome{})
	p.enters(password, "invalid_credentials")
	p.enters(newPassword, "")
}
