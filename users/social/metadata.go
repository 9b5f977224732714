package social

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mandate-auth/mandate/internal/strictjwt"
)

// metadata is what is known of a provider: by its discovery document, or by the
// configuration. It is immutable.
type metadata struct {
	issuer                                  string
	authURL, tokenURL, userInfoURL, jwksURL string
	// algorithms are those of ID tokens.
	algorithms []string
	// issRequired says that callbacks have "iss" (RFC 9207 section 3).
	issRequired bool
}

// ours are the algorithms without a word of the provider, and the order in which a key
// without "alg" is given one.
var ours = []string{"EdDSA", "ES256", "RS256"}

// fetchMetadata returns what the configuration says, or fetches the discovery document.
func (p *provider) fetchMetadata(ctx context.Context) (*metadata, error) {
	if p.discovery == "" {
		return &metadata{issuer: p.Issuer, authURL: p.AuthURL, tokenURL: p.TokenURL, userInfoURL: p.UserInfoURL}, nil
	}
	document, err := p.set.getObject(ctx, p.discovery, "")
	if err != nil {
		return nil, err
	}
	m := &metadata{}
	for name, into := range map[string]*string{
		"issuer": &m.issuer, "authorization_endpoint": &m.authURL, "token_endpoint": &m.tokenURL,
		"userinfo_endpoint": &m.userInfoURL, "jwks_uri": &m.jwksURL,
	} {
		value, there := document[name]
		if !there && name == "userinfo_endpoint" {
			continue
		}
		text, ok := value.(string)
		if !ok {
			return nil, fmt.Errorf("%q is not a string", name)
		}
		*into = text
	}
	if !p.acceptsDocument(m.issuer) {
		return nil, errors.New("the document is another issuer's")
	}
	if err := p.checkEndpoints(m); err != nil {
		return nil, err
	}
	if m.algorithms, err = algorithmsOf(document); err != nil {
		return nil, err
	}
	const parameter = "authorization_response_iss_parameter_supported"
	if value, there := document[parameter]; there {
		var ok bool
		if m.issRequired, ok = value.(bool); !ok {
			return nil, fmt.Errorf("%q is neither true nor false", parameter)
		}
	}
	return m, nil
}

// checkEndpoints checks where the document sends people and secrets. Only an issuer on
// this machine may name addresses of this machine.
func (p *provider) checkEndpoints(m *metadata) error {
	issuer, err := checkURL(p.issuer)
	if err != nil {
		return err
	}
	for name, address := range map[string]string{
		"authorization_endpoint": m.authURL, "token_endpoint": m.tokenURL, "userinfo_endpoint": m.userInfoURL, "jwks_uri": m.jwksURL,
	} {
		if address == "" && name == "userinfo_endpoint" {
			continue
		}
		u, err := checkURL(address)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if thisMachine(u.Hostname()) && !thisMachine(issuer.Hostname()) {
			return fmt.Errorf("%s: an address of this machine", name)
		}
	}
	if err := checkAuthURL(m.authURL); err != nil {
		return fmt.Errorf("authorization_endpoint: %w", err)
	}
	return nil
}

// algorithmsOf returns the algorithms that the provider signs ID tokens with and that
// are accepted: asymmetric ones, and none of PS*, whose salts verifiers do not check.
func algorithmsOf(document map[string]any) ([]string, error) {
	value, there := document["id_token_signing_alg_values_supported"]
	if !there {
		return ours, nil
	}
	list, ok := value.([]any)
	if !ok {
		return nil, errors.New("the algorithms are not a list")
	}
	var named []string
	for _, item := range list {
		if name, _ := item.(string); strictjwt.Known(name) && !slices.Contains(named, name) {
			named = append(named, name)
		}
	}
	if len(named) == 0 {
		return nil, errors.New("none of the algorithms is accepted")
	}
	rank := func(name string) int {
		if i := slices.Index(ours, name); i >= 0 {
			return i
		}
		return len(ours)
	}
	slices.SortStableFunc(named, func(a, b string) int { return rank(a) - rank(b) })
	return named, nil
}

func (p *provider) fetchKeys(ctx context.Context) ([]strictjwt.Key, error) {
	m, err := p.metadata.get(ctx, false)
	if err != nil {
		return nil, p.refuse(reasonDiscovery, err)
	}
	_, raw, err := p.set.get(ctx, m.jwksURL, "")
	if err != nil {
		return nil, err
	}
	keys, _, err := strictjwt.ParseKeys(raw, m.algorithms)
	return keys, err
}

// key returns the key that a token of this header is signed with. An id that is not
// there may be new: then the keys are fetched, but seldom.
func (p *provider) key(ctx context.Context, h *strictjwt.Header) (*strictjwt.Key, error) {
	for _, newer := range []bool{false, true} {
		keys, err := p.keys.get(ctx, newer)
		if err != nil {
			return nil, p.refuse(reasonKeys, err)
		}
		if k, _ := strictjwt.Find(keys, h.KeyID, h.Algorithm); k != nil {
			return k, nil
		}
	}
	return nil, errors.New("a key that the provider does not have, or that could be several")
}
