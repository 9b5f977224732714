package onetime

import (
	"context"
	"errors"
	"maps"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/internal/base62"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/tokens/keys"
)

// prefix begins every token, so that one is recognised in a log or a repository.
const prefix = "mot_"

// NewToken is a wish for a token.
type NewToken struct {
	Purpose Purpose
	// Subject is whom or what the token is about: see [Store.Revoke].
	Subject string
	// Data comes back when the token is used. It is stored in the clear.
	Data map[string]string
	// TTL is its life, required.
	TTL time.Duration
	// Seed makes the token follow from it and from the app's keys: whoever has to make
	// one again, because it is not known what became of the first, makes the same. It is
	// an id of 128 random bits or more. Empty makes a random token.
	Seed string
}

// Issue makes a token: "mot_" and 43 letters and digits, 256 bits. One that follows
// from a seed and is there already stays as it is, used or not; the error is [ErrInvalid]
// where that one has other data.
func (s *Store) Issue(ctx context.Context, n NewToken) (string, error) {
	text := prefix + base62.NewSecret()
	if n.Seed != "" {
		text = seeded(s.config.Keys.Newest(keys.OneTime), n.Purpose, n.Seed)
	}
	err := s.insert(ctx, s.newRecord(digest(text), n))
	if n.Seed != "" && errors.Is(err, store.ErrDuplicate) {
		err = s.alike(ctx, digest(text), n.Data)
	}
	if err != nil {
		return "", err
	}
	return text, nil
}

// alike makes sure that the token that is there has the data.
func (s *Store) alike(ctx context.Context, id string, data map[string]string) error {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var r record
	err := s.coll.FindOne(ctx, bson.M{"_id": id, "app": s.config.App}).Decode(&r)
	switch {
	case errors.Is(err, mongo.ErrNoDocuments), err == nil && !maps.Equal(r.Data, data):
		return ErrInvalid
	default:
		return store.Error("read the one-time token", err)
	}
}

func (s *Store) newRecord(id string, n NewToken) *record {
	now := store.Time(s.config.Now())
	return &record{ID: id, App: s.config.App, Token: Token{
		Purpose: n.Purpose, Subject: n.Subject, Data: n.Data, CreatedAt: now, ExpiresAt: store.Time(now.Add(n.TTL)),
	}}
}

func (s *Store) insert(ctx context.Context, r *record) error {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, err := s.coll.InsertOne(ctx, r)
	return store.Error("store the one-time token", err)
}

// wellFormed reports whether the text can be a token at all.
func wellFormed(text string) bool {
	secret, ok := strings.CutPrefix(text, prefix)
	return ok && len(secret) == base62.SecretLength && strings.Trim(secret, base62.Alphabet) == ""
}

// Peek returns what is known about a token and leaves it usable, so that what comes
// with it can be checked first. It decides nothing: [Store.Consume] does. The error
// is [ErrInvalid].
func (s *Store) Peek(ctx context.Context, purpose Purpose, text string) (*Token, error) {
	if !wellFormed(text) {
		return nil, ErrInvalid
	}
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var r record
	err := s.coll.FindOne(ctx, s.usable(purpose, digest(text), noCode)).Decode(&r)
	return found(&r, "read the one-time token", err)
}

// noCode is the condition for a token that is used without a code.
var noCode = bson.E{Key: "code", Value: bson.D{{Key: "$exists", Value: false}}}

// Consume uses a token up and returns what is known about it. Of many calls at once
// one succeeds; all others, and every later one, end with [ErrInvalid].
func (s *Store) Consume(ctx context.Context, purpose Purpose, text string) (*Token, error) {
	if !wellFormed(text) {
		return nil, ErrInvalid
	}
	return s.use(ctx, s.usable(purpose, digest(text), noCode))
}

// use marks what the filter names as used.
func (s *Store) use(ctx context.Context, filter bson.D) (*Token, error) {
	ctx, cancel := store.Context(context.WithoutCancel(ctx))
	defer cancel()
	var r record
	err := s.coll.FindOneAndUpdate(ctx, filter, bson.D{{Key: "$set", Value: bson.D{{Key: "used_at", Value: store.Time(s.config.Now())}}}}).Decode(&r)
	return found(&r, "use the one-time token", err)
}

func found(r *record, op string, err error) (*Token, error) {
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, ErrInvalid
	}
	if err != nil {
		return nil, store.Error(op, err)
	}
	return &r.Token, nil
}

// Revoke ends every token of the purposes that is about the subject. Without a
// purpose it ends all.
func (s *Store) Revoke(ctx context.Context, subject string, purposes ...Purpose) error {
	filter := bson.M{"app": s.config.App, "subject": subject}
	if len(purposes) > 0 {
		filter["purpose"] = bson.M{"$in": purposes}
	}
	ctx, cancel := store.Context(context.WithoutCancel(ctx))
	defer cancel()
	_, err := s.coll.DeleteMany(ctx, filter)
	return store.Error("end one-time tokens", err)
}

// seeded is the token that follows from the seed under the key.
func seeded(k keys.Key, purpose Purpose, seed string) string {
	return prefix + base62.Secret(k.MAC([]byte("seed/"+string(purpose)+"/"+seed)))
}

// Claim notes that something was used, by its id, and remembers it until expires: of
// many calls with one id the first succeeds and the others are [ErrUsed]. The id has
// to be a value of 128 random bits or more, and of no other app.
func (s *Store) Claim(ctx context.Context, purpose Purpose, id string, expires time.Time) error {
	now := store.Time(s.config.Now())
	r := &record{ID: digest(string(purpose) + "/" + id), App: s.config.App, Token: Token{
		Purpose: purpose, Subject: "claim", CreatedAt: now, ExpiresAt: store.Time(expires),
	}}
	err := s.insert(context.WithoutCancel(ctx), r)
	if errors.Is(err, store.ErrDuplicate) {
		return ErrUsed
	}
	return err
}
