// Package social signs people in by other providers: the relying party's side of
// OpenID Connect Core 1.0 (authorization code flow, section 3.1) and of OAuth 2.0 (RFC
// 6749 section 4.1), by the rules of RFC 9700. It speaks the protocol and says who
// came; it knows no accounts.
//
// A sign-in is two calls. [Set.Begin] gives the address to send the browser to, and a
// sealed text that the browser keeps in a cookie. [Set.Finish] takes the query that the
// provider sends the browser back with, and that text. A service that runs the flow
// itself keeps the text where it likes, as long as that belongs to the one browser.
//
// # What binds a sign-in
//
// The state is 256 random bits, good for one callback within ten minutes, of one
// browser, one provider and one app. PKCE with S256 (RFC 7636) and, for OpenID Connect,
// a nonce are always used. Each provider has a redirect URI of its own, and "iss" of RFC
// 9207 is compared where the provider has an issuer: an answer of one provider is
// nothing to another.
//
// # What is believed
//
// Nothing but the configured issuer decides who is called. Its discovery document
// (OpenID Connect Discovery 1.0 section 4) is fetched when it is first needed, over
// https, and has to name the issuer byte for byte; http serves on loopback addresses
// only. Every answer is bounded in time and size, has to be strict JSON and is not
// followed elsewhere. There is no way through a proxy named by the environment: a
// service that needs one gives its own Config.Client.
//
// ID tokens are verified by github.com/coreos/go-oidc with the one key that the token's
// "kid" and algorithm name. Before and after that this package refuses what the standard
// lets pass or leaves to the relying party: headers that bring keys, names given twice,
// "azp", "iat", "nonce", "at_hash".
//
// # Who it is
//
// A person is [Result].Issuer and [UserInfo].Subject together, never an e-mail address:
// addresses change hands, and some providers let people claim those of others.
package social

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/secret"
)

const (
	// Lifetime is how long a sign-in may take from [Set.Begin] to [Set.Finish].
	Lifetime = 10 * time.Minute
	// MaxCookie is the greatest length of [Flow].Cookie in bytes. With a name and an
	// "=" of up to 196 it fits into the 4,096 that browsers keep.
	MaxCookie = 3900
	// MaxData is the greatest length of [BeginOptions].Data in bytes.
	MaxData = 1024
	// MaxNext is the greatest length of [BeginOptions].Next in bytes.
	MaxNext = 1024
	// Purpose is what a [Once] is asked to claim states for.
	Purpose = "oauth_state"
)

// Once claims things that are good for one use. It is safe for concurrent use.
type Once interface {
	// Claim returns nil for the first caller with this purpose and id, and
	// [ErrReplayed] for every other one, in parallel too and on every instance. It
	// may forget the id when expires has come. Another error means that it is open
	// who was first; the sign-in is refused then.
	Claim(ctx context.Context, purpose, id string, expires time.Time) error
}

// ProviderConfig configures one provider. Exactly one of Preset, Issuer and AuthURL
// says where it is, but for what the presets say below.
type ProviderConfig struct {
	// Name names the routes and the redirect URI: ^[a-z][a-z0-9_-]{0,31}$. Required.
	Name string
	// Preset is "google", "github", "microsoft" or "gitlab".
	Preset string
	// Issuer is the issuer of OpenID Connect, found by discovery, byte for byte as it
	// names itself. With the preset gitlab it is a server of one's own, with microsoft
	// the authority of another cloud (default https://login.microsoftonline.com), with
	// github the address of an Enterprise Server. Beside AuthURL nothing is discovered:
	// it is what "iss" of RFC 9207 has to be.
	Issuer string
	// Tenant is required with the preset microsoft and nowhere else: a tenant's GUID or
	// domain, or "organizations", "consumers" or "common". The last three are open to
	// every tenant of the kind; there the token's issuer has to be that of its "tid".
	Tenant string
	// AuthURL, TokenURL and UserInfoURL are the endpoints of OAuth 2.0 without OpenID
	// Connect. With the preset github they replace its own; the addresses of a person
	// are then at UserInfoURL + "/emails".
	AuthURL, TokenURL, UserInfoURL string
	// Claims says what is where in the answer of UserInfoURL. Required with AuthURL and
	// without a preset, and nowhere else.
	Claims ClaimMap
	// DisplayName is the provider's name for people. Default: that of the preset, or
	// Name.
	DisplayName string
	// ClientID and ClientSecret are what the provider gave the service. Required.
	ClientID     string
	ClientSecret secret.Value
	// Scopes are asked for. Default: the preset's, or "openid email profile" for OpenID
	// Connect, where "openid" is required.
	Scopes []string
	// AuthStyle is how the client authenticates at the token endpoint (RFC 6749 section
	// 2.3.1): "" for client_secret_basic, "post" for client_secret_post.
	AuthStyle string
	// AuthParams are further parameters of the authorization request, such as "prompt"
	// or "access_type". Those of the protocol are refused. "hd" of the preset google is
	// checked in the ID token too: by itself it is only a hint.
	AuthParams map[string]string
	// KeepTokens returns the provider's tokens in [Result].Tokens.
	KeepTokens bool
}

// Config configures a [Set].
type Config struct {
	// App is the slug of the app. Required.
	App string
	// Keys seal what the browser keeps. Required.
	Keys *keys.App
	// RedirectBase is what redirect URIs begin with: https (http on loopback), with "/"
	// at its end. That of a provider is RedirectBase + name + "/callback". Required.
	RedirectBase string
	// Providers are the providers.
	Providers []ProviderConfig
	// Once claims states. Required.
	Once Once
	// Client makes the calls. Its transport and its time limit, by default 10 s for each
	// call, are used; its cookies are not, and redirects are never followed. Default: a
	// client of the set's own with TLS 1.2 or later.
	Client *http.Client
	// Events gets an event.IdentityRefused for every callback that is refused. Default
	// event.Discard.
	Events event.Sink
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Logger gets why a callback was refused. Default slog.Default().
	Logger *slog.Logger
}

// Set are the providers of an app. It is safe for concurrent use.
type Set struct {
	config    Config
	list      []*provider
	client    *http.Client
	transport *http.Transport // ours to close, or nil
	cancel    context.CancelFunc
	running   sync.WaitGroup
}

// New returns the providers that config describes. It calls none of them. Close it
// when it is not needed any more.
func New(config Config) (*Set, error) {
	if config.App == "" || config.Keys == nil || config.Once == nil {
		return nil, errors.New("social: App, Keys and Once are required")
	}
	if err := checkRedirectBase(config.RedirectBase); err != nil {
		return nil, fmt.Errorf("social: RedirectBase: %w", err)
	}
	config.Events = cmp.Or[event.Sink](config.Events, event.Discard{})
	config.Logger = cmp.Or(config.Logger, slog.Default())
	if config.Now == nil {
		config.Now = time.Now //nolint:forbidigo // the default of the injected clock
	}
	config.Providers = slices.Clone(config.Providers)
	s := &Set{config: config}
	s.client, s.transport = newClient(config.Client)
	base, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	var faults []error
	for i := range config.Providers {
		p, err := s.newProvider(base, &config.Providers[i])
		if err == nil && s.find(p.Name) != nil {
			err = errors.New("is given twice")
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("social: provider %q: %w", config.Providers[i].Name, err))
			continue
		}
		s.list = append(s.list, p)
	}
	if len(faults) > 0 {
		cancel()
		return nil, errors.Join(faults...)
	}
	return s, nil
}

// Close ends what runs in the background and the calls that others wait for. It
// returns when that has ended, or ctx has.
func (s *Set) Close(ctx context.Context) error {
	s.cancel()
	for _, p := range s.list {
		p.metadata.close()
		p.keys.close()
	}
	if err := store.Wait(ctx, &s.running); err != nil {
		return fmt.Errorf("social: close: %w", err)
	}
	if s.transport != nil {
		s.transport.CloseIdleConnections()
	}
	return nil
}

// The kinds of an [Info].
const (
	KindOIDC   = "oidc"
	KindOAuth2 = "oauth2"
)

// Info is what everybody may know about a provider.
type Info struct {
	// Name is ProviderConfig.Name, and DisplayName what people call it.
	Name, DisplayName string
	// Kind is [KindOIDC] or [KindOAuth2].
	Kind string
}

// Providers returns the providers in the order of Config.Providers.
func (s *Set) Providers() []Info {
	infos := make([]Info, len(s.list))
	for i, p := range s.list {
		infos[i] = Info{Name: p.Name, DisplayName: p.DisplayName, Kind: p.kind()}
	}
	return infos
}

func (s *Set) find(name string) *provider {
	for _, p := range s.list {
		if p.Name == name {
			return p
		}
	}
	return nil
}
