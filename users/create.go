package users

import (
	"cmp"
	"context"
	"errors"
	"regexp"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/tokens/keys"
)

// NewUser is a person to create.
type NewUser struct {
	Email, Password string
	Profile         map[string]any
	// Guest is the id of a guest who becomes this person: the account keeps its id, its
	// sessions and its roles. Empty makes a new account. Where people have to verify their
	// address it has to be Verified; [ErrUnverified] otherwise.
	Guest string
	// Verified says that the address has been proved to be the person's.
	Verified bool
	// Claim is called with the account's id when all has been judged and before the account
	// is stored; its error is that of the call, which is not cancelled any more after it.
	// What it gives to a new account is in nobody's hands yet. A guest keeps it, also one
	// who does not become the person. Nil does nothing.
	Claim func(ctx context.Context, userID string) error
}

// Create creates a person on the service's word: the roles that the manifest has
// for the address are granted, so it must be known to be the person's. What
// visitors type goes to [Store.Register].
//
// A taken address is [ErrEmailTaken], after as much work as a free one; a value
// that is not admitted is a [FieldError].
func (s *Store) Create(ctx context.Context, n NewUser) (*User, error) {
	return userOf(s.create(ctx, n, true))
}

// Register creates a person who says so, as POST /register does: nobody has
// proved to be the owner of the address. The errors are those of Create.
func (s *Store) Register(ctx context.Context, n NewUser) (*User, error) {
	return userOf(s.create(ctx, n, false))
}

// SignUp creates a person who says so, as Register does, and returns the proof that a
// session begins with: whoever gets the account meanwhile ends it. An address that is
// Verified is trusted, as by Create.
func (s *Store) SignUp(ctx context.Context, n NewUser) (*User, *Proof, error) {
	r, err := s.create(ctx, n, n.Verified)
	if err != nil {
		return nil, nil, err
	}
	return &r.User, ProveByMail(r.ID, s.stamps(r)[0]), nil
}

func userOf(r *record, err error) (*User, error) {
	if err != nil {
		return nil, err
	}
	return &r.User, nil
}

func (s *Store) create(ctx context.Context, n NewUser, trusted bool) (*record, error) {
	p, err := s.Prepare(ctx, n)
	if err != nil {
		return nil, err
	}
	return s.complete(ctx, p, &n, trusted)
}

// Prepared is a registration that has been judged and hashed, for an account that is
// made later. It holds the hash and not the password.
type Prepared struct {
	Email   string         `json:"email"`
	Hash    string         `json:"hash"`
	Profile map[string]any `json:"profile,omitempty"`
	Guest   string         `json:"guest,omitempty"`
}

// Prepare does what a registration costs, whether or not the address is taken. The
// error is a [FieldError] for a value that is not admitted.
func (s *Store) Prepare(ctx context.Context, n NewUser) (*Prepared, error) {
	norm, err := NormalizeEmail(n.Email)
	if err != nil {
		return nil, err
	}
	if err := checkProfile(n.Profile); err != nil {
		return nil, err
	}
	if err := s.checkNew(ctx, "password", n.Password, norm); err != nil {
		return nil, err
	}
	hash, err := s.config.Hasher.Hash(ctx, s.config.BcryptCost, n.Password)
	if err != nil {
		return nil, err
	}
	return &Prepared{Email: n.Email, Hash: hash, Profile: n.Profile, Guest: n.Guest}, nil
}

// Complete makes the account of a registration that was prepared, once its address has
// been proved to be the person's: whoever calls has seen the proof. It may be repeated:
// the account that a call before has made is the one. The error is [ErrEmailTaken] or
// [ErrNotGuest].
func (s *Store) Complete(ctx context.Context, p *Prepared) (*User, error) {
	u, err := s.complete(ctx, p, &NewUser{Verified: true}, true)
	if !errors.Is(err, ErrEmailTaken) {
		return userOf(u, err)
	}
	norm, err := NormalizeEmail(p.Email)
	if err != nil {
		return nil, err
	}
	r, err := s.readByNorm(ctx, norm)
	switch {
	case err == nil && r.PasswordHash == p.Hash: // its salt is in no other
		return &r.User, s.verified(ctx, r.ID, norm)
	case err == nil || errors.Is(err, ErrNotFound):
		return nil, ErrEmailTaken
	default:
		return nil, err
	}
}

func (s *Store) complete(ctx context.Context, p *Prepared, n *NewUser, trusted bool) (*record, error) {
	norm, err := NormalizeEmail(p.Email)
	if err != nil {
		return nil, err
	}
	r := s.newRecord(authz.KindHuman)
	r.Email, r.EmailNorm, r.PasswordHash, r.Profile, r.EmailVerified = p.Email, norm, p.Hash, p.Profile, n.Verified
	if n.Claim != nil {
		ctx = context.WithoutCancel(ctx)
		if err := n.Claim(ctx, cmp.Or(p.Guest, r.ID)); err != nil {
			return nil, err
		}
	}
	if err := s.admitOr(ctx, r, p.Guest, trusted); err != nil {
		return nil, err
	}
	s.report(ctx, event.UserRegistered, event.Success, r.ID, "")
	return r, nil
}

// admitOr stores the account, as a new one or in the place of a guest's.
func (s *Store) admitOr(ctx context.Context, r *record, guest string, trusted bool) error {
	var err error
	switch {
	case guest == "":
		err = s.admit(ctx, r, trusted)
	case s.config.RequireVerified && !r.EmailVerified:
		return ErrUnverified // nobody would let the guest in any more
	default:
		err = s.adopt(ctx, r, guest, trusted)
	}
	if errors.Is(err, store.ErrDuplicate) {
		return ErrEmailTaken
	}
	return err
}

// admit gives the account its roles and stores it.
func (s *Store) admit(ctx context.Context, r *record, trusted bool) error {
	if s.config.Roles == nil || r.Kind == authz.KindAnonymous {
		return s.insert(ctx, r)
	}
	if r.EmailNorm != "" {
		// Not to write roles for somebody who is not let in. The index decides.
		if _, err := s.readByNorm(ctx, r.EmailNorm); !errors.Is(err, ErrNotFound) {
			return cmp.Or(err, store.ErrDuplicate)
		}
	}
	if err := s.config.Roles.Welcome(ctx, r.ID, r.EmailNorm, trusted); err != nil {
		return err
	}
	err := s.insert(ctx, r)
	if errors.Is(err, store.ErrDuplicate) {
		// Somebody was faster. Roles of an id that nobody has do no harm where this
		// fails. When the outcome is unknown they stay: the account may be there.
		_ = s.config.Roles.Forget(context.WithoutCancel(ctx), r.ID)
	}
	return err
}

func (s *Store) newRecord(kind authz.Kind) *record {
	now := store.Time(s.config.Now())
	return &record{
		App:  s.config.App,
		User: User{ID: store.NewID("usr_"), Kind: kind, Status: Active, CreatedAt: now, UpdatedAt: now},
	}
}

func (s *Store) insert(ctx context.Context, r *record) error {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, err := s.users.InsertOne(ctx, r)
	return store.Error("create the user", err)
}

// deviceIDForm is what a device id must look like: long enough not to be
// guessed.
var deviceIDForm = regexp.MustCompile(`^[A-Za-z0-9_-]{32,128}$`)

// NewDeviceID returns a device id with more than 128 random bits.
func NewDeviceID() string { return store.NewID("") + store.NewID("") }

// Anonymous returns the guest of the device with the id, and makes it when
// there is none. Whoever knows the id is the guest, so only a MAC of it is
// stored. The error is a [FieldError] for an id of the wrong form and
// [ErrDisabled] for a guest that is disabled.
func (s *Store) Anonymous(ctx context.Context, deviceID string) (*User, error) {
	return s.ofDevice(ctx, authz.KindAnonymous, deviceID, event.AnonymousStarted)
}

// Demo returns the demo user of the device with the id, as Anonymous does for
// guests.
func (s *Store) Demo(ctx context.Context, deviceID string) (*User, error) {
	return s.ofDevice(ctx, authz.KindDemo, deviceID, event.DemoStarted)
}

func (s *Store) ofDevice(ctx context.Context, kind authz.Kind, deviceID string, started event.Type) (*User, error) {
	if !deviceIDForm.MatchString(deviceID) {
		return nil, invalid("device_id", "must have 32 to 128 letters, digits, - or _")
	}
	hashes := s.config.Keys.Identifiers(keys.Device, deviceID)
	for attempt := 0; ; attempt++ {
		// The lower bound is that of the partial index, so that it can be used.
		r, err := s.read(ctx, bson.M{"app": s.config.App, "kind": kind, "device_hash": bson.M{"$in": hashes, "$gt": ""}})
		if err == nil {
			if r.Status != Active {
				return nil, ErrDisabled
			}
			s.renewDevice(ctx, r, hashes[0])
			return &r.User, nil
		}
		if !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		r = s.newRecord(kind)
		r.DeviceHash = hashes[0]
		err = s.admit(ctx, r, false)
		if err == nil {
			s.report(ctx, started, event.Success, r.ID, "")
			return &r.User, nil
		}
		// Another request of the device was faster: its user is the one.
		if !errors.Is(err, store.ErrDuplicate) || attempt > 0 {
			return nil, err
		}
	}
}

// DemoUser is a demo user that signs in with a password.
type DemoUser struct {
	Email, Password string
}

// SeedDemo makes sure that the demo users are there with these passwords. It is
// for development: passwords are not judged. Several instances may do it at
// once. An address that belongs to a person is [ErrEmailTaken]: nobody's account
// gets another password by a manifest.
func (s *Store) SeedDemo(ctx context.Context, list []DemoUser) error {
	for _, d := range list {
		if err := s.seed(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) seed(ctx context.Context, d DemoUser) error {
	norm, err := NormalizeEmail(d.Email)
	if err != nil {
		return err
	}
	for attempt := 0; ; attempt++ {
		r, err := s.readByNorm(ctx, norm)
		switch {
		case err == nil:
			return s.reseed(ctx, r, d)
		case !errors.Is(err, ErrNotFound):
			return err
		}
		hash, err := s.config.Hasher.Hash(ctx, s.config.BcryptCost, d.Password)
		if err != nil {
			return err
		}
		r = s.newRecord(authz.KindDemo)
		r.Email, r.EmailNorm, r.EmailVerified, r.PasswordHash = d.Email, norm, true, hash
		if err = s.insert(ctx, r); err == nil || !errors.Is(err, store.ErrDuplicate) || attempt > 0 {
			return err
		}
	}
}

// reseed gives a demo user that is there the password of the manifest.
func (s *Store) reseed(ctx context.Context, r *record, d DemoUser) error {
	if r.Kind != authz.KindDemo {
		return ErrEmailTaken
	}
	same, err := s.config.Hasher.Verify(ctx, r.PasswordHash, d.Password)
	if err != nil || same {
		return err
	}
	return s.storePassword(ctx, r.ID, r.PasswordHash, d.Password)
}

// storePassword replaces the hash was by one of password, on the condition that
// it is still the one.
func (s *Store) storePassword(ctx context.Context, id, was, password string) error {
	hash, err := s.config.Hasher.Hash(ctx, s.config.BcryptCost, password)
	if err != nil {
		return err
	}
	return s.storeHash(ctx, id, was, hash)
}

// storeHash is storePassword for a hash that is there.
func (s *Store) storeHash(ctx context.Context, id, was, hash string) error {
	filter := bson.M{"_id": id, "app": s.config.App, "password_hash": was}
	if was == "" {
		filter["password_hash"] = bson.M{"$exists": false}
	}
	return s.change(ctx, filter, bson.M{
		"$set": bson.M{"password_hash": hash}, "$inc": bson.M{"password_changes": int64(1)},
		"$unset": bson.M{"reset_stamp": ""}, // what proved a reset before says nothing about this one
	})
}

// update changes one user and its updated_at. The error is [ErrChanged] when
// the filter matched none.
func (s *Store) update(ctx context.Context, filter, set bson.M) error {
	return s.change(ctx, filter, bson.M{"$set": set})
}

// change is update for more than new values.
func (s *Store) change(ctx context.Context, filter, update bson.M) error {
	set, _ := update["$set"].(bson.M)
	if set == nil {
		set = bson.M{}
		update["$set"] = set
	}
	if set["updated_at"] == nil {
		set["updated_at"] = s.nextUpdate(time.Time{})
	}
	ctx, cancel := store.Context(context.WithoutCancel(ctx))
	defer cancel()
	res, err := s.users.UpdateOne(ctx, filter, update)
	if err != nil {
		return store.Error("change the user", err)
	}
	if res.MatchedCount == 0 {
		return ErrChanged
	}
	return nil
}

// nextUpdate is a new updated_at that differs from before: conditional updates
// tell versions apart by it.
func (s *Store) nextUpdate(before time.Time) time.Time {
	now := store.Time(s.config.Now())
	if !now.After(before) {
		return before.Add(time.Millisecond)
	}
	return now
}
