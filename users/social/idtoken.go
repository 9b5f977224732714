package social

import (
	"context"
	"crypto"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/mandate-auth/mandate/internal/strictjwt"
)

// leeway is how far the provider's clock may be ahead, or behind when the sign-in
// began.
const leeway = time.Minute

// verified are the claims of an ID token.
type verified struct {
	issuer, subject string
	claims          map[string]any
}

// verify checks an ID token by OpenID Connect Core section 3.1.3.7. The library
// verifies signature, audience and expiry, and the issuer where there is one; what it
// reads differently from how it was written has been refused before it sees it.
func (p *provider) verify(ctx context.Context, m *metadata, f *flow, g *granted) (*verified, error) {
	parts, err := strictjwt.Split(g.idToken, maxToken)
	if err != nil {
		return nil, err
	}
	h, err := readHeader(parts.Header, m.algorithms)
	if err != nil {
		return nil, err
	}
	k, err := p.key(ctx, h)
	if err != nil {
		return nil, err
	}
	now := p.set.config.Now()
	verifier := oidc.NewVerifier(m.issuer, &oidc.StaticKeySet{PublicKeys: []crypto.PublicKey{k.Public}}, &oidc.Config{
		ClientID: p.ClientID, SupportedSigningAlgs: []string{k.Algorithm}, Now: func() time.Time { return now },
		// The one that it has to be depends on "tid", see below.
		SkipIssuerCheck: strings.Contains(m.issuer, anyTenant),
	})
	token, err := verifier.Verify(ctx, g.idToken)
	if err != nil {
		return nil, err
	}
	v, err := p.readClaims(m, parts.Payload)
	if err != nil {
		return nil, err
	}
	tenant, _ := v.claims["tid"].(string)
	if err := p.checkKeyIssuer(k.Issuer, v.issuer, tenant); err != nil {
		return nil, err
	}
	if err := checkTimes(v.claims, f, now); err != nil {
		return nil, err
	}
	if nonce, _ := v.claims["nonce"].(string); subtle.ConstantTimeCompare([]byte(nonce), []byte(f.Nonce)) != 1 {
		return nil, errors.New("the nonce is not that of the sign-in")
	}
	if value, there := v.claims["at_hash"]; there {
		if hash, _ := value.(string); hash == "" || token.VerifyAccessToken(g.access) != nil {
			return nil, errors.New("the access token is not the ID token's")
		}
	}
	return v, nil
}

func readHeader(raw []byte, algorithms []string) (*strictjwt.Header, error) {
	members, err := strictjwt.Object(raw)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	h, err := strictjwt.HeaderOf(members)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if !slices.Contains(algorithms, h.Algorithm) {
		return nil, errors.New("header: an algorithm that is not accepted")
	}
	// Other types are tokens for other ends: access tokens (RFC 9068), logout tokens.
	if h.Type != "" && !strings.EqualFold(h.Type, "JWT") {
		return nil, errors.New("header: a type that is not accepted")
	}
	return &h, nil
}

// readClaims reads and checks the claims but for the times and what belongs to the
// sign-in.
func (p *provider) readClaims(m *metadata, raw []byte) (*verified, error) {
	value, err := strictjwt.Value(raw)
	if err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	claims, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("claims: not an object")
	}
	v := &verified{claims: claims}
	if v.issuer, err = p.tokenIssuer(m, claims); err != nil {
		return nil, &Error{Provider: p.Name, Reason: reasonTenant, kind: ErrProvider, cause: err}
	}
	if claims["iss"] != any(v.issuer) {
		return nil, errors.New("issued by another issuer")
	}
	if err := p.checkAudience(claims); err != nil {
		return nil, err
	}
	if v.subject, err = strictjwt.Text(claims, "sub"); err != nil {
		return nil, err
	}
	return v, p.checkDomain(claims)
}

// checkAudience checks "aud" and "azp". One of several audiences could pass the token
// on; then it has to say that it was issued to us.
func (p *provider) checkAudience(claims map[string]any) error {
	several := false
	switch audience := claims["aud"].(type) {
	case string:
		if audience != p.ClientID {
			return errors.New("for another audience")
		}
	case []any:
		if !slices.Contains(audience, any(p.ClientID)) {
			return errors.New("for another audience")
		}
		several = len(audience) > 1
	default:
		return errors.New("no audience")
	}
	if party, there := claims["azp"]; (there || several) && party != any(p.ClientID) {
		return errors.New("issued to another client")
	}
	return nil
}

// checkTimes checks "exp", "iat" and "nbf". The token is issued in exchange for the code
// of this sign-in, so that an older one was issued for something else.
func checkTimes(claims map[string]any, f *flow, now time.Time) error {
	expires, err := strictjwt.NumericDate(claims["exp"])
	if err != nil || !now.Before(expires) {
		return errors.New("expired")
	}
	issued, err := strictjwt.NumericDate(claims["iat"])
	if err != nil || issued.After(now.Add(leeway)) {
		return errors.New("issued in the future, or no time of issue; compare the clocks")
	}
	if issued.Before(time.Unix(f.Begun, 0).Add(-leeway)) {
		return errors.New("issued before the sign-in began; compare the clocks")
	}
	value, there := claims["nbf"]
	if !there {
		return nil
	}
	if begins, err := strictjwt.NumericDate(value); err != nil || begins.After(now.Add(leeway)) {
		return errors.New("not valid yet; compare the clocks")
	}
	return nil
}
