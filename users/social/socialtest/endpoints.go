package socialtest

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"
)

func (p *Provider) handlers() map[Endpoint]func(*http.Request, *Answer) {
	return map[Endpoint]func(*http.Request, *Answer){
		Discovery: p.discovery, JWKS: p.jwks, Authorize: p.authorize, Token: p.token, UserInfo: p.userInfo,
		GitHubUser: p.gitHubUser, GitHubEmails: p.gitHubEmails,
	}
}

func (p *Provider) discovery(r *http.Request, a *Answer) {
	a.JSON(http.StatusOK, map[string]any{
		"issuer":                   p.URL + strings.TrimSuffix(r.URL.Path, string(Discovery)),
		"authorization_endpoint":   p.URL + string(Authorize),
		"token_endpoint":           p.URL + string(Token),
		"userinfo_endpoint":        p.URL + string(UserInfo),
		"jwks_uri":                 p.URL + string(JWKS),
		"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
		"id_token_signing_alg_values_supported":          []string{"RS256", "ES256", "EdDSA"},
		"code_challenge_methods_supported":               []string{"S256"},
		"authorization_response_iss_parameter_supported": true,
	})
}

func (p *Provider) jwks(_ *http.Request, a *Answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := []any{}
	for _, k := range p.keys {
		list = append(list, k.Public())
	}
	a.JSON(http.StatusOK, map[string]any{"keys": list})
}

// authorize takes the person's consent for granted and sends the browser back (RFC 6749
// section 4.1.2, RFC 9207).
func (p *Provider) authorize(r *http.Request, a *Answer) {
	query := r.URL.Query()
	back := url.Values{"state": {query.Get("state")}, "iss": {p.URL}}
	p.mu.Lock()
	user := p.signedIn
	switch {
	case query.Get("client_id") != p.ClientID || query.Get("redirect_uri") == "":
		a.JSON(http.StatusBadRequest, map[string]any{"error": "invalid_request"})
		p.mu.Unlock()
		return
	case user == "":
		back.Set("error", "access_denied")
	case query.Get("response_type") != "code" || query.Get("code_challenge") == "" || query.Get("code_challenge_method") != "S256":
		back.Set("error", "invalid_request")
	default:
		code := random()
		p.grants[code] = &grant{
			subject: user, clientID: query.Get("client_id"), redirect: query.Get("redirect_uri"),
			challenge: query.Get("code_challenge"), nonce: query.Get("nonce"), scope: query.Get("scope"), issuer: p.URL,
		}
		back.Set("code", code)
	}
	p.mu.Unlock()
	a.Status = http.StatusFound
	a.Header.Set("Location", query.Get("redirect_uri")+"?"+back.Encode())
}

// token gives tokens for a code, once (RFC 6749 section 4.1.3, RFC 7636 section 4.6).
func (p *Provider) token(r *http.Request, a *Answer) {
	if r.Method != http.MethodPost || r.ParseForm() != nil || !p.authenticated(r) {
		a.JSON(http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.grants[r.PostForm.Get("code")]
	delete(p.grants, r.PostForm.Get("code"))
	sum := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
	if g == nil || r.PostForm.Get("grant_type") != "authorization_code" || g.redirect != r.PostForm.Get("redirect_uri") ||
		g.challenge != base64.RawURLEncoding.EncodeToString(sum[:]) {
		a.JSON(http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
		return
	}
	access := random()
	p.access[access] = g.subject
	answer := map[string]any{
		"access_token": access, "token_type": "Bearer", "expires_in": 3600, "scope": g.scope, "refresh_token": random(),
	}
	if strings.Contains(" "+g.scope+" ", " openid ") {
		answer["id_token"] = p.newIDToken(g, access)
	}
	a.JSON(http.StatusOK, answer)
}

// authenticated checks the client, which has to use exactly one way (RFC 6749 section
// 2.3.1).
func (p *Provider) authenticated(r *http.Request) bool {
	id, secret, basic := r.BasicAuth()
	if !basic {
		return r.PostForm.Get("client_id") == p.ClientID && r.PostForm.Get("client_secret") == p.ClientSecret
	}
	id, errID := url.QueryUnescape(id)
	secret, errSecret := url.QueryUnescape(secret)
	return errID == nil && errSecret == nil && id == p.ClientID && secret == p.ClientSecret && !r.PostForm.Has("client_secret")
}

// newIDToken makes an ID token (OpenID Connect Core section 2). p.mu is held.
func (p *Provider) newIDToken(g *grant, access string) string {
	k := p.keys[0]
	now := p.now()
	claims := maps.Clone(p.users[g.subject].Claims)
	maps.Copy(claims, map[string]any{
		"iss": g.issuer, "sub": g.subject, "aud": g.clientID, "exp": now.Add(time.Hour).Unix(), "iat": now.Unix(),
		"at_hash": AccessTokenHash(k.Algorithm, access),
	})
	if g.nonce != "" {
		claims["nonce"] = g.nonce
	}
	header := map[string]any{"alg": k.Algorithm, "kid": k.ID, "typ": "JWT"}
	if p.header != nil {
		p.header(header)
	}
	if p.claims != nil {
		p.claims(claims)
	}
	token := k.Sign(header, claims)
	if p.idToken != nil {
		token = p.idToken(token)
	}
	return token
}

// AccessTokenHash returns "at_hash" (OpenID Connect Core section 3.1.3.6).
func AccessTokenHash(algorithm, access string) string {
	sum := sha256.Sum256([]byte(access))
	half := sum[:16]
	if algorithm == "EdDSA" {
		long := sha512.Sum512([]byte(access))
		half = long[:32]
	}
	return base64.RawURLEncoding.EncodeToString(half)
}

// owner returns whose access token the request has.
func (p *Provider) owner(r *http.Request, a *Answer) (User, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	subject, ok := p.access[token]
	if !ok {
		a.JSON(http.StatusUnauthorized, map[string]any{"error": "invalid_token"})
	}
	return p.users[subject], ok
}

func (p *Provider) userInfo(r *http.Request, a *Answer) {
	if u, ok := p.owner(r, a); ok {
		a.JSON(http.StatusOK, u.Claims)
	}
}

func (p *Provider) gitHubUser(r *http.Request, a *Answer) {
	if u, ok := p.owner(r, a); ok {
		a.JSON(http.StatusOK, u.GitHub)
	}
}

func (p *Provider) gitHubEmails(r *http.Request, a *Answer) {
	if u, ok := p.owner(r, a); ok {
		a.JSON(http.StatusOK, u.Emails)
	}
}
