package issuers_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/issuers"
	"github.com/mandate-auth/mandate/tokens/m2m"
)

// Two issuers: one that keeps to RFC 9068, and Amazon Cognito, whose access tokens
// have no audience and no type.
func Example() {
	ctx := context.Background()
	login, err := issuers.New(issuers.Config{
		Name:       "login",
		Issuer:     "https://login.example",
		Audience:   []string{"https://api.example"},
		TokenTypes: []string{"at+jwt", "application/at+jwt"},
		M2M:        m2m.Mapping{TokenUseValues: []string{}, SubjectIsClient: true},
	})
	if err != nil {
		log.Fatal(err)
	}
	cognito, err := issuers.New(issuers.Config{
		Name:          "cognito",
		Issuer:        "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEfGhI",
		AudienceClaim: "client_id",
		Audience:      []string{"1example23456789"},
		Algorithms:    []string{"RS256"},
	})
	if err != nil {
		log.Fatal(err)
	}
	set, err := issuers.NewSet(login, cognito)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = set.Close(ctx) }()

	// The claims say {"iss":"https://evil.example"}: nobody is asked about it.
	_, err = set.Verify(ctx, "eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2V2aWwuZXhhbXBsZSJ9.AA")
	fmt.Println(errors.Is(err, tokens.ErrInvalid))
	// Output: true
}
