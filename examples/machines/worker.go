package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// work sends a reading at once and then as often as it is told, until ctx ends. It is
// a program of its own in all but its process: it knows where the service is, a
// client's id and its secret, and nothing of Mandate.
func work(ctx context.Context, issuer, clientID, secret string, every time.Duration) error {
	// The secret and the token stay where they were meant for.
	plain := &http.Client{
		Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer plain.CloseIdleConnections()
	endpoint, err := discover(ctx, plain, issuer)
	if err != nil {
		return err
	}
	config := clientcredentials.Config{
		ClientID: clientID, ClientSecret: secret, TokenURL: endpoint, Scopes: []string{"readings:write"}, AuthStyle: oauth2.AuthStyleInHeader,
	}
	// One token serves until shortly before it ends; then the client fetches the next.
	client := config.Client(context.WithValue(ctx, oauth2.HTTPClient, plain))
	client.Timeout, client.CheckRedirect = plain.Timeout, plain.CheckRedirect
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for n := 0; ; n++ {
		if err := send(ctx, client, issuer, 20+float64(n%10)/10); err != nil && ctx.Err() == nil {
			slog.Warn("a reading was not taken", slog.Any("error", err)) // the next one may be
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// discover asks the service where its tokens are to be had (RFC 8414 section 3).
func discover(ctx context.Context, client *http.Client, issuer string) (endpoint string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, issuer+"/.well-known/oauth-authorization-server", http.NoBody)
	if err != nil {
		return "", err
	}
	res, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var metadata struct {
		Issuer   string `json:"issuer"`
		Endpoint string `json:"token_endpoint"`
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("discover %s: %s", issuer, res.Status)
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&metadata); err != nil {
		return "", fmt.Errorf("discover %s: %w", issuer, err)
	}
	if metadata.Issuer != issuer { // section 3.3: or somebody else would get the secret
		return "", fmt.Errorf("discover %s: it says to be %q", issuer, metadata.Issuer)
	}
	return metadata.Endpoint, nil
}

func send(ctx context.Context, client *http.Client, base string, value float64) error {
	body := strings.NewReader(fmt.Sprintf(`{"value":%g}`, value))
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/readings", body)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	res, err := client.Do(request)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusCreated {
		problem, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10))
		return fmt.Errorf("%s: %s", res.Status, problem)
	}
	return nil
}
