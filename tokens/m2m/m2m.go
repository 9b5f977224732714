// Package m2m tells from the claims of another issuer's access token whether a
// machine or a person presents it.
//
// A token is a machine's when it meets four criteria together: it names no user,
// its use is "access", it names the client that it was issued to, and none of the
// claims that describe people is there. [Default] holds the names of these claims
// at Amazon Cognito; a [Mapping] holds those of another provider.
//
// # Neither machine nor person
//
// Both mistakes are dangerous: a machine that is taken for a person passes the
// guards for people, and a person that is taken for a machine passes those for
// services. So each answer needs evidence of its own, and a token that has none,
// or that contradicts itself, is neither: [IsMachine] and [RequiresUserContext]
// are both false and [Kind] is the zero value, which no guard lets pass. "Not a
// machine" must never be read as "a person".
//
// # Claims are not believed here
//
// The functions only read. Whether the claims may be believed is decided before,
// by whoever checks the signature. Claims can hold any JSON; a value of a wrong
// type is evidence of nothing, and never for a person's or a machine's benefit.
//
// Mandate's own tokens say outright what they are, by the claim "sub_type". That
// claim means nothing in the token of another issuer, and is ignored here: it is
// not the other issuer's to set.
//
// Everything here is safe for concurrent use and touches neither network nor
// database.
package m2m

import "github.com/mandate-auth/mandate/authz"

// Metadata is what a token says about who presents it.
type Metadata struct {
	// TokenUse is the claim of [Mapping.TokenUseClaim], "" when it is not there or
	// no string.
	TokenUse string `json:"token_use"`
	// ClientID is the client that the token was issued to, "" for none.
	ClientID string `json:"client_id"`
	// Scopes are what the token is limited to, never nil.
	Scopes []string `json:"scopes"`
	// HasUserContext says that the token names a person.
	HasUserContext bool `json:"has_user_context"`
}

// standard is the detector of [Default].
var standard = compile(Default())

// IsMachine is [Detector.IsMachine] of the [Default] mapping.
func IsMachine(claims map[string]any) bool { return standard.IsMachine(claims) }

// ClientID is [Detector.ClientID] of the [Default] mapping.
func ClientID(claims map[string]any) (id string, found bool) { return standard.ClientID(claims) }

// MetadataOf is [Detector.MetadataOf] of the [Default] mapping.
func MetadataOf(claims map[string]any) Metadata { return standard.MetadataOf(claims) }

// RequiresUserContext is [Detector.RequiresUserContext] of the [Default] mapping.
func RequiresUserContext(claims map[string]any) bool { return standard.RequiresUserContext(claims) }

// Kind is [Detector.Kind] of the [Default] mapping.
func Kind(claims map[string]any) authz.Kind { return standard.Kind(claims) }
