package strictjwt

import "errors"

// Header is what the header of a token says. Nothing of it is to be believed: it
// chooses among keys and types that are accepted anyway.
type Header struct {
	Algorithm string
	// KeyID is the "kid", "" for none.
	KeyID string
	// Type is the "typ", "" for none.
	Type string
}

// HeaderOf reads the members of a header (RFC 7515 section 4.1): "alg", "kid", "typ"
// and the thumbprints "x5t" and "x5t#S256", which name a certificate and are of no
// use here. Every other one is refused: those that bring a key or say where to get it
// (jwk, jku, x5c, x5u), those that change what is verified (b64, zip, cty, enc),
// "crit", and what nobody knows.
func HeaderOf(members map[string]any) (h Header, err error) {
	for name := range members {
		var value string
		if value, err = Text(members, name); err != nil {
			return Header{}, err
		}
		switch name {
		case "alg":
			h.Algorithm = value
		case "kid":
			h.KeyID = value
		case "typ":
			h.Type = value
		case "x5t", "x5t#S256":
		default:
			return Header{}, errors.New("a member that is not accepted")
		}
	}
	return h, nil
}
