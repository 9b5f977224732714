package onetime

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/internal/base62"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/tokens/keys"
)

// MaxTries is how many codes can be tried in one flow.
const MaxTries = 5

// codeLength is the length of a code in decimal digits (NIST SP 800-63B-4 section
// 3.1.3.2 asks for six).
const codeLength = 6

// flowPrefix begins the id of a flow.
const flowPrefix = "mof_"

// Flow is one use of a code: whoever asks for a code holds the id, and the code goes
// to the owner of an address. Both are needed, so a code that somebody was talked out
// of, or that was guessed, is worth nothing elsewhere (ASVS 6.6.2).
type Flow struct {
	// ID stays with who asks: 256 random bits.
	ID string
	// Handle stands for the flow where its id must not be: in the database.
	Handle string
}

// NewFlow begins a flow. It calls nothing.
func NewFlow() Flow {
	id := flowPrefix + base62.NewSecret()
	return Flow{ID: id, Handle: digest(id)}
}

// Open makes the code of the flow with the handle, six digits. A code that was made
// for it before is worth nothing any more, and what was tried counts on. The error is
// [ErrInvalid] for a flow that was used.
func (s *Store) Open(ctx context.Context, handle string, n NewToken) (string, error) {
	number, err := rand.Int(rand.Reader, big.NewInt(1_000_000))
	if err != nil {
		return "", fmt.Errorf("onetime: %w", err)
	}
	code := fmt.Sprintf("%0*d", codeLength, number)
	r := s.newRecord(handle, n)
	ctx, cancel := store.Context(ctx)
	defer cancel()
	// A flow that was used is not opened again: the upsert inserts where the filter finds
	// nothing, and the _id refuses that.
	_, err = s.coll.UpdateOne(ctx,
		bson.D{{Key: "_id", Value: handle}, {Key: "app", Value: s.config.App}, {Key: "purpose", Value: n.Purpose}, {Key: "used_at", Value: bson.D{{Key: "$exists", Value: false}}}},
		bson.D{
			{Key: "$set", Value: bson.D{{Key: "code", Value: s.mac(s.config.Keys.Newest(keys.OneTime), handle, code)}, {Key: "data", Value: r.Data}}},
			{Key: "$setOnInsert", Value: bson.D{
				{Key: "subject", Value: r.Subject}, {Key: "created_at", Value: r.CreatedAt}, {Key: "expires_at", Value: r.ExpiresAt}, {Key: "tries", Value: 0},
			}},
		}, options.Update().SetUpsert(true))
	if mongo.IsDuplicateKeyError(err) {
		return "", ErrInvalid
	}
	return code, store.Error("store the one-time code", err)
}

// mac binds a code to its flow.
func (s *Store) mac(k keys.Key, handle, code string) string {
	return k.ID + "." + base64.RawURLEncoding.EncodeToString(k.MAC([]byte("code/"+handle+"/"+code)))
}

// Try uses up the flow with the right code. Each try counts before the code is looked
// at, and after [MaxTries] none is right any more: 500 tries at once are five. The
// error is [ErrInvalid]; for a code that was looked at, and is wrong, what is known about
// the flow comes with it, so that the failure can be counted where it belongs.
func (s *Store) Try(ctx context.Context, purpose Purpose, flowID, code string) (*Token, error) {
	secret, ok := strings.CutPrefix(flowID, flowPrefix)
	if !ok || len(secret) != base62.SecretLength || strings.Trim(secret, base62.Alphabet) != "" {
		return nil, ErrInvalid
	}
	handle := digest(flowID)
	r, err := s.try(ctx, purpose, handle)
	if err != nil {
		return nil, err
	}
	if !s.matches(r, handle, code) {
		return &r.Token, ErrInvalid
	}
	// The code of this moment: one that was made meanwhile ends it.
	return s.use(ctx, s.usable(purpose, handle, bson.E{Key: "code", Value: r.Code}))
}

// try counts a try.
func (s *Store) try(ctx context.Context, purpose Purpose, handle string) (*record, error) {
	ctx, cancel := store.Context(context.WithoutCancel(ctx))
	defer cancel()
	var r record
	err := s.coll.FindOneAndUpdate(ctx,
		s.usable(purpose, handle, bson.E{Key: "tries", Value: bson.D{{Key: "$lt", Value: MaxTries}}}),
		bson.D{{Key: "$inc", Value: bson.D{{Key: "tries", Value: 1}}}}).Decode(&r)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, ErrInvalid
	}
	if err != nil {
		return nil, store.Error("count a try", err)
	}
	return &r, nil
}

// matches compares the code in constant time. The MAC names its key.
func (s *Store) matches(r *record, handle, code string) bool {
	id, text, _ := strings.Cut(r.Code, ".")
	mac, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(code) != codeLength {
		return false
	}
	k, ok := s.config.Keys.ByID(keys.OneTime, id)
	return ok && k.Verify([]byte("code/"+handle+"/"+code), mac)
}
