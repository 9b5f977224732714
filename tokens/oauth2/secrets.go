package oauth2

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/base62"
	"github.com/mandate-auth/mandate/internal/store"
)

const (
	// minSecret is the least number of bytes of a secret from outside.
	minSecret = 32
	// maxSecret is the longest secret that is looked at, in bytes.
	maxSecret = 512
)

// newSecret returns "mcs_" and 256 random bits in base62, which no client has to
// encode for HTTP Basic (RFC 6749 section 2.3.1).
func newSecret() string { return "mcs_" + base62.NewSecret() }

// digest is what a client and its secret are known by. The id is part of it, so that
// two clients with one secret do not show it.
type digest [sha256.Size]byte

// digestOf expects an id of fixed length, or the end of the id could be the
// beginning of the secret.
func digestOf(id, secret string) digest {
	var buf [64 + maxSecret]byte
	return sha256.Sum256(append(append(buf[:0], id...), secret...))
}

// stored is the digest as it is stored.
func (d digest) stored() string { return base64.RawURLEncoding.EncodeToString(d[:]) }

// Rotate gives the client a new secret and returns it. The secret that was the
// newest before is accepted too, until the next rotation or until it is removed; an
// older one is dead when Rotate returns. Tokens that were issued live on.
//
// A call whose outcome is open takes the new secret away again as far as it can: a
// secret that nobody knows would push out one that is in use when the call is
// repeated. Look at Client.Secrets before repeating it, and remove what is newest
// and unknown.
func (s *Store) Rotate(ctx context.Context, id string) (string, error) {
	ctx = context.WithoutCancel(ctx)
	text := newSecret()
	if err := s.push(ctx, id, digestOf(id, text)); err != nil {
		return "", err
	}
	return text, nil
}

// push makes the secret with the hash the client's newest and ends what falls out.
// It changes nothing when the client has it already. [ErrNotFound] is for a client
// that is not there.
func (s *Store) push(ctx context.Context, id string, hash digest) error {
	added := storedSecret{ID: store.NewID(secretPrefix), Hash: hash.stored(), CreatedAt: store.Time(s.config.Now())}
	after, err := s.modify(ctx, s.byID(id, bson.E{Key: "secrets.hash", Value: bson.D{{Key: "$ne", Value: added.Hash}}}), bson.D{
		{Key: "$push", Value: bson.D{{Key: "secrets", Value: bson.D{{Key: "$each", Value: bson.A{added}}, {Key: "$slice", Value: -maxSecrets}}}}},
		{Key: "$inc", Value: bson.D{{Key: "secrets_epoch", Value: int64(1)}}},
	})
	if errors.Is(err, ErrNotFound) {
		// No client, or one that has the secret.
		_, err := s.read(ctx, id)
		return err
	}
	if err == nil {
		s.report(ctx, event.ClientSecretRotated, id, "")
		// Always, also when nothing fell out: a call before may have died here.
		err = s.config.Blacklist.AddClient(ctx, secretsOf(id), after.SecretsEpoch, "secret_rotated")
	}
	if err != nil {
		s.pull(ctx, id, added.ID)
	}
	return err
}

// secretsOf is what the blacklist calls the secrets of a client: an entry for the
// client itself would end its tokens too.
func secretsOf(id string) string { return id + "/secrets" }

// pull takes away a secret that was never handed out.
func (s *Store) pull(ctx context.Context, id, secretID string) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, _ = s.coll.UpdateOne(ctx, s.byID(id), bson.D{{Key: "$pull", Value: bson.D{
		{Key: "secrets", Value: bson.D{{Key: "id", Value: secretID}}},
	}}})
}

// RemoveSecret ends a secret of the client at once, and every token of the client
// with it: who has the secret may have tokens too. Removing what is not there is no
// error, so that the call can be repeated. The error is [ErrLastSecret] when no other
// secret would be left.
func (s *Store) RemoveSecret(ctx context.Context, id, secretID string) error {
	ctx = context.WithoutCancel(ctx)
	after, err := s.modify(ctx,
		s.byID(id, bson.E{Key: "secrets.id", Value: secretID}, bson.E{Key: "secrets.1", Value: bson.D{{Key: "$exists", Value: true}}}),
		bson.D{
			{Key: "$pull", Value: bson.D{{Key: "secrets", Value: bson.D{{Key: "id", Value: secretID}}}}},
			{Key: "$inc", Value: bson.D{{Key: "epoch", Value: int64(1)}}},
		})
	if err == nil {
		s.report(ctx, event.ClientUpdated, id, "secret_removed")
	} else if errors.Is(err, ErrNotFound) {
		if after, err = s.read(ctx, id); err == nil && after.has(secretID) {
			return ErrLastSecret
		}
	}
	if err != nil {
		return err
	}
	// Also when the secret is gone already: the call before may have died here.
	return s.config.Blacklist.AddClient(ctx, id, after.Epoch, "secret_removed")
}

func (r *record) has(secretID string) bool {
	return slices.ContainsFunc(r.Secrets, func(x storedSecret) bool { return x.ID == secretID })
}

// modify changes one client on the conditions of filter and returns what it is then.
// No match is [ErrNotFound].
func (s *Store) modify(ctx context.Context, filter, update bson.D) (*record, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var r record
	err := s.coll.FindOneAndUpdate(ctx, filter, update, options.FindOneAndUpdate().SetReturnDocument(options.After)).Decode(&r)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, store.Error("change the client", err)
	}
	return &r, nil
}
