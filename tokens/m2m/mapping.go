package m2m

import (
	"errors"
	"fmt"
	"slices"
)

// Mapping names the claims of a provider that the criteria look at. A nil field
// takes its value from [Default]; an empty one that is not nil switches off what
// it stands for, where that is allowed.
//
// Names of claims are compared byte by byte.
type Mapping struct {
	// UsernameClaims name a user: with any of them a token is no machine's. Not
	// empty.
	UsernameClaims []string `json:"username_claims,omitempty"`
	// UserClaims describe a user: with any of them a token is no machine's.
	UserClaims []string `json:"user_claims,omitempty"`
	// TokenUseClaim says what the token is for. Default "token_use".
	TokenUseClaim string `json:"token_use_claim,omitempty"`
	// TokenUseValues are the values of TokenUseClaim that a machine's token may
	// have. Empty for a provider without such a claim; then MachineClaim or
	// SubjectIsClient is required, because what is left would be too little.
	TokenUseValues []string `json:"token_use_values,omitempty"`
	// ClientIDClaims are the names under which the client id is looked for. Where
	// several are there they have to agree. Not empty.
	ClientIDClaims []string `json:"client_id_claims,omitempty"`
	// ScopeClaims are the names under which scopes are looked for; the first that is
	// there counts. Its value is a string with spaces (RFC 6749 section 3.3) or a
	// list of strings.
	ScopeClaims []string `json:"scope_claims,omitempty"`
	// MachineClaim is the claim by which the provider says outright that no user
	// stands behind a token, "gty" at Auth0 and "idtyp" at Microsoft Entra ID.
	// Without one of its MachineValues a token is no machine's; with one it is no
	// person's. Default none.
	MachineClaim string `json:"machine_claim,omitempty"`
	// MachineValues are the values of MachineClaim that say so: "client-credentials"
	// at Auth0, "app" at Microsoft Entra ID.
	MachineValues []string `json:"machine_values,omitempty"`
	// SubjectIsClient requires of a machine's token that its "sub" is the client id,
	// as RFC 9068 section 2.2 wants it.
	SubjectIsClient bool `json:"subject_is_client,omitempty"`
}

// Default returns the mapping for Amazon Cognito: the user's name under
// "cognito:username" in ID tokens and under "username" in access tokens, the
// standard claims of OpenID Connect Core section 5.1, "token_use" of "access",
// "client_id", and scopes under "scope" or "scp".
//
// "auth_time" is not among them: Cognito writes it into the tokens of machines.
func Default() Mapping {
	return Mapping{
		UsernameClaims: []string{"cognito:username", "username", "preferred_username"},
		UserClaims: []string{
			"email", "email_verified", "phone_number", "phone_number_verified", "name", "given_name", "family_name",
			"middle_name", "nickname", "profile", "picture", "website", "gender", "birthdate", "zoneinfo", "locale", "address",
			"upn", "unique_name", "cognito:groups", "identities",
		},
		TokenUseClaim:  "token_use",
		TokenUseValues: []string{"access"},
		ClientIDClaims: []string{"client_id"},
		ScopeClaims:    []string{"scope", "scp"},
	}
}

// Detector applies a [Mapping]. [New] makes one.
type Detector struct {
	mapping Mapping
	// people are UsernameClaims and UserClaims together.
	people []string
}

// New returns the detector for mapping, completed from [Default]. It refuses a
// mapping that could not tell machines from people.
func New(mapping Mapping) (*Detector, error) {
	m := complete(mapping)
	switch {
	case len(m.UsernameClaims) == 0:
		return nil, errors.New("m2m: username_claims is empty: name a claim that every user's token has")
	case len(m.ClientIDClaims) == 0:
		return nil, errors.New("m2m: client_id_claims is empty: name the claim that holds the client id")
	case (m.MachineClaim == "") != (len(m.MachineValues) == 0):
		return nil, errors.New("m2m: machine_claim and machine_values need each other")
	case len(m.TokenUseValues) == 0 && m.MachineClaim == "" && !m.SubjectIsClient:
		return nil, errors.New("m2m: without token_use_values set machine_claim or subject_is_client")
	}
	for _, list := range [][]string{
		m.UsernameClaims, m.UserClaims, m.TokenUseValues, m.ClientIDClaims, m.ScopeClaims, m.MachineValues,
	} {
		if slices.Contains(list, "") {
			return nil, errors.New("m2m: a list holds an empty name or value")
		}
	}
	for _, name := range slices.Concat(m.ClientIDClaims, m.ScopeClaims, []string{m.TokenUseClaim, m.MachineClaim, "sub"}) {
		if slices.Contains(m.UsernameClaims, name) || slices.Contains(m.UserClaims, name) {
			return nil, fmt.Errorf("m2m: %q cannot be a claim of people and another one at once", name)
		}
	}
	return compile(m), nil
}

// complete returns a copy of m with the default of each field that is not set.
func complete(m Mapping) Mapping {
	d := Default()
	pick := func(list, standard []string) []string {
		if list == nil {
			return standard
		}
		return slices.Clone(list)
	}
	m.UsernameClaims = pick(m.UsernameClaims, d.UsernameClaims)
	m.UserClaims = pick(m.UserClaims, d.UserClaims)
	m.TokenUseValues = pick(m.TokenUseValues, d.TokenUseValues)
	m.ClientIDClaims = pick(m.ClientIDClaims, d.ClientIDClaims)
	m.ScopeClaims = pick(m.ScopeClaims, d.ScopeClaims)
	m.MachineValues = slices.Clone(m.MachineValues)
	if m.TokenUseClaim == "" {
		m.TokenUseClaim = d.TokenUseClaim
	}
	return m
}

// compile returns the detector for a mapping that is complete.
func compile(m Mapping) *Detector {
	return &Detector{mapping: m, people: slices.Concat(m.UsernameClaims, m.UserClaims)}
}
