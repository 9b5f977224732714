package users_test

import (
	"context"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"golang.org/x/crypto/bcrypt"

	"github.com/mandate-auth/mandate/tokens/secret"
	"github.com/mandate-auth/mandate/users"
)

func newHasher(tb testing.TB, edit ...func(*users.HasherConfig)) *users.Hasher {
	tb.Helper()
	var config users.HasherConfig
	for _, f := range edit {
		f(&config)
	}
	h, err := users.NewHasher(config)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

// vectors are hashes that others have published or made.
var vectors = []struct{ source, password, hash string }{
	{"RFC 6070, 1 round", "password", "pbkdf2:sha1:1$salt$0c60c80f961f0e71f3a9b524af6012062fe037a6"},
	{"RFC 6070, 2 rounds", "password", "pbkdf2:sha1:2$salt$ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957"},
	{"RFC 6070, 4096 rounds", "password", "pbkdf2:sha1:4096$salt$4b007901b765489abead49d926f721d065a429c1"},
	{"RFC 7914 section 11, 1 round", "passwd", "pbkdf2:sha256:1$salt$55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783"},
	{"RFC 7914 section 11, 80000 rounds", "Password", "pbkdf2:sha256:80000$NaCl$4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56a1d425a1225833549adb841b51c9b3176a272bdebba1d078478f62b397f33c8d"},
	{"RFC 7914 section 12, N=1024", "password", "scrypt:1024:8:16$NaCl$fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b3731622eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640"},
	{"RFC 7914 section 12, N=16384", "pleaseletmein", "scrypt:16384:8:1$SodiumChloride$7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887"},
	// RFC 9106 has only vectors with a secret and associated data, which no stored hash carries.
	{"test.c of the argon2 reference", "password", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"},
	{"test.c of the argon2 reference, another password", "differentpassword", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$C4TWUs9rDEvq7w3+J4umqA32aWKB1+DSiRuBfYxFj94"},
	{"test.c of the argon2 reference, argon2i", "password", "$argon2i$v=19$m=256,t=2,p=2$c29tZXNhbHQ$T/XOJ2mh1/TIpJHfCdQan76Q5esCFVoT5MAeIM1Oq2E"},
	{"documentation of passlib, scrypt", "password", "$scrypt$ln=8,r=8,p=1$WKs1xljLudd6z9kbY0wpJQ$yCR4iDZYDKv+iEJj6yHY0lv/epnfB6f/w1EbXrsJOuQ"},
	{"documentation of passlib, pbkdf2_sha256", "password", "$pbkdf2-sha256$6400$.6UI/S.nXIk8jcbdHx3Fhg$98jZicV16ODfEsEZeYPGHU3kbrUrvUEXOPimVSQDD44"},
	{"tests of Ory Kratos", "test", "$pbkdf2-sha512$i=100000,l=32$bdHBpn7OWOivJMVJypy2UqR0UnaD5prQXRZevj/05YU$+wArTfv1a+bNGO1iZrmEdVjhA+lL11wF4/IxpgYfPwc"},
	{"documentation of Azure IoT MQ", "password", "$pbkdf2-sha512$i=100000,l=64$HqJwOCHweNk1pLryiu3RsA$KVSvxKYcibIG5S5n55RvxKRTdAAfCUtBJoy5IuFzdSZyzkwvUcU+FPawEWFPn+06JyZsndfRTfpiEh+2eSJLkg"},
	{"tests of Django, pbkdf2_sha256", "lètmein", "pbkdf2_sha256$10000$seasalt$CWWFdHOWwPnki7HvkcqN9iA2T3KLW1cf2uZ5kvArtVY="},
	{"tests of Django, pbkdf2_sha1", "lètmein", "pbkdf2_sha1$10000$seasalt$oAfF6vgs95ncksAhGXOWf4Okq7o="},
	{"tests of Django, scrypt", "lètmein", "scrypt$16384$seasalt$8$1$Qj3+9PPyRjSJIebHnG81TMjsqtaIGxNQG/aEB/NYafTJ7tibgfYz71m0ldQESkXFRkdVCBhhY8mx7rQwite/Pw=="},
	{"tests of Django, scrypt with p=5", "lètmein", "scrypt$16384$seasalt$8$5$ECMIUp+LMxMSK8xB/IVyba+KYGTI7FTnet025q/1f/vBAVnnP3hdYqJuRi+mJn6ji6ze3Fbb7JEFPKGpuEf5vw=="},
	{"made by Werkzeug 3.1.8", "lètmein", "scrypt:1024:8:1$Lt5InEdCDxQD5mFs$7e2aa54ad8dd39a555d4edfdb16270e99e1127fcf337edf680537abc3b01b769bd2616ec394567d8bf86e6bc6baef58a64d5b049509d27655d132404543fc424"},
	{"made by Werkzeug 3.1.8", "lètmein", "pbkdf2:sha256:1000$WRRGhJgeOhHXsM5H$ce46a4c5491c4164bc232841b3455cf9fff358b8964508e4ab2af57efcd249d5"},
	{"made by Werkzeug 3.1.8", "lètmein", "pbkdf2:sha512:1000$zN9lVLNH15suQt4T$f61e4f98095eee009582fed8bfdb4470f7df5248e9121c61828ba780b5e4175326bc96a2e4f5032a0356bab6d266cc71c82507aec73b869211ca1508dd323159"},
	{"made by Werkzeug 3.1.8", "lètmein", "pbkdf2:sha1:1000$ziiYJyyo6DUsNlj5$882c626c42c58736a561a92bbe84fcc83a9e6bc0"},
	{"made by passlib 1.7.4", "lètmein", "$argon2id$v=19$m=64,t=2,p=2$5pwTovR+L0WI8b73PqeUEg$n43ByrmPtqu0kmKCiXoFMg"},
	{"made by passlib 1.7.4", "lètmein", "$scrypt$ln=4,r=8,p=1$RyiF8B5jDOGcszZmTAmh1A$ch/JrgoIgMAmIKEiTbtIeaz1nRwXSbIF8PEvdTtGsNI"},
	{"made by passlib 1.7.4", "lètmein", "$pbkdf2$100$8l7L.V.LsdYaw3iPUSrFeA$W8RoGRMZ1k/3m3hxpNaweC5.qTk"},
	{"made by passlib 1.7.4", "lètmein", "$pbkdf2-sha512$100$lfI.x1jrnVOKcY5RCiFkTA$ikk306TqdAojKFXws.7GVV2D04TQ5HNCqbiQC.TfCROujcRH7olsgA3ewevdwD0T/mL3nJ1qPoLVIrTn365INg"},
	{"made by passlib 1.7.4 for Django", "lètmein", "argon2$argon2id$v=19$m=64,t=2,p=2$aS0FwNhb611rzflfK2UshQ$KBdFvX12PKlULhcN1aIqvQ"},
	{"made by passlib 1.7.4", "lètmein", "$2b$04$urM23mYOokEHXk.kAkY.MeXzsBgKHKjr1B3Faln4GOEFvMRcP5M6q"},
}

func TestForeignHashes(t *testing.T) {
	t.Parallel()
	h := newHasher(t, func(c *users.HasherConfig) { c.Slots, c.QueueDeadline = 2, time.Minute })
	for _, v := range vectors {
		t.Run(v.source, func(t *testing.T) {
			t.Parallel()
			if err := h.Check(v.hash); err != nil {
				t.Errorf("Check: %v", err)
			}
			if ok, err := h.Verify(t.Context(), v.hash, v.password); !ok || err != nil {
				t.Errorf("the right password: %t, %v", ok, err)
			}
			for _, wrong := range []string{"", v.password + "\x00", v.password[1:], v.password + "\xff"} {
				if ok, err := h.Verify(t.Context(), v.hash, wrong); ok || err != nil {
					t.Errorf("%q: %t, %v", wrong, ok, err)
				}
			}
			if !h.NeedsRehash(v.hash, bcrypt.MinCost) {
				t.Error("would never be renewed")
			}
		})
	}
}

// Other systems hash the bytes that were typed. A hash of the decomposed form must
// not ask for the composed one.
func TestForeignHashesTakeThePasswordAsTyped(t *testing.T) {
	t.Parallel()
	h := newHasher(t)
	typed := "cafe\u0301 au lait"
	sum, err := bcrypt.GenerateFromPassword([]byte(typed), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := h.Verify(t.Context(), string(sum), typed); !ok || err != nil {
		t.Errorf("as it was typed: %t, %v", ok, err)
	}
	if ok, _ := h.Verify(t.Context(), string(sum), "caf\u00e9 au lait"); ok {
		t.Error("another form was tried as well: that would be two hashes for one guess")
	}
}

// What is no text was typed by nobody: it must not match even where the bytes do.
func TestForeignHashesRefuseWhatIsNoText(t *testing.T) {
	t.Parallel()
	h := newHasher(t)
	for _, password := range []string{"caf\xe9 au lait", "nul\x00nul"} {
		key, err := pbkdf2.Key(sha256.New, password, []byte("salt"), 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := h.Verify(t.Context(), "pbkdf2:sha256:10$salt$"+hex.EncodeToString(key), password); ok || err != nil {
			t.Errorf("%q: %t, %v", password, ok, err)
		}
	}
}

// refused are hashes that no verification may begin with.
var refused = map[string]string{
	"":                               "unknown form",
	"plain text":                     "unknown form",
	"$1$salt$qJH7.N4xYta3aEG/dfqo/0": "unknown form",
	"{SSHA}nope":                     "unknown form",
	"$2x$04$urM23mYOokEHXk.kAkY.MeXzsBgKHKjr1B3Faln4GOEFvMRcP5M6q":       "unknown form",
	"$2b$04$urM23mYOokEHXk.kAkY.MeXzsBgKHKjr1B3Faln4GOEFvMRcP5M6":        "unknown form",
	"$2b$04$urM23mYOokEHXk.kAkY.MeXzsBgKHKjr1B3Faln4GOEFvMRcP5M6q\n":     "unknown form",
	"$2b$03$urM23mYOokEHXk.kAkY.MeXzsBgKHKjr1B3Faln4GOEFvMRcP5M6q":       "cost 03",
	"$2b$16$urM23mYOokEHXk.kAkY.MeXzsBgKHKjr1B3Faln4GOEFvMRcP5M6q":       "cost 16",
	"$2b$31$urM23mYOokEHXk.kAkY.MeXzsBgKHKjr1B3Faln4GOEFvMRcP5M6q":       "cost 31",
	"$argon2d$v=19$m=64,t=2,p=2$5pwTovR+L0WI8b73PqeUEg$n43ByrmPtqu0kmKC": "unknown form",

	"$argon2id$v=16$m=64,t=2,p=2$5pwTovR+L0WI8b73PqeUEg$n43ByrmPtqu0kmKCiXoFMg":              "version",
	"$argon2id$m=64,t=2,p=2$5pwTovR+L0WI8b73PqeUEg$n43ByrmPtqu0kmKCiXoFMg":                   "unknown form",
	"$argon2id$v=19$m=64,t=2,p=2$5pwTovR+L0WI8b73PqeUEg$n43ByrmPtqu0kmKCiXoFMg$":             "unknown form",
	"$argon2id$v=19$m=64,p=2,t=2$5pwTovR+L0WI8b73PqeUEg$n43ByrmPtqu0kmKCiXoFMg":              "parameters",
	"$argon2id$v=19$m=64,t=2,t=2$5pwTovR+L0WI8b73PqeUEg$n43ByrmPtqu0kmKCiXoFMg":              "parameters",
	"$argon2id$v=19$m=64,t=2,p=2,keyid=x$5pwTovR+L0WI8b73PqeUEg$n43ByrmPtqu0kmKCiXoFMg":      "parameters",
	"$argon2id$v=19$m=064,t=2,p=2$5pwTovR+L0WI8b73PqeUEg$n43ByrmPtqu0kmKCiXoFMg":             "positive number",
	"$argon2id$v=19$m=64,t=0,p=2$5pwTovR+L0WI8b73PqeUEg$n43ByrmPtqu0kmKCiXoFMg":              "positive number",
	"$argon2id$v=19$m=64,t=+2,p=2$5pwTovR+L0WI8b73PqeUEg$n43ByrmPtqu0kmKCiXoFMg":             "positive number",
	"$argon2id$v=19$m=99999999999999999999,t=2,p=2$5pwTovR+L0WI8b73PqeUEg$n43ByrmPtqu0kmKCi": "positive number",
	"$argon2id$v=19$m=2097152,t=1,p=4$5pwTovR+L0WI8b73PqeUEg$n43ByrmPtqu0kmKCiXoFMg":         "2048 MiB of memory",
	"$argon2id$v=19$m=262144,t=9,p=1$5pwTovR+L0WI8b73PqeUEg$n43ByrmPtqu0kmKCiXoFMg":          "too long",
	"$argon2id$v=19$m=1024,t=4294967295,p=1$5pwTovR+L0WI8b73PqeUEg$n43ByrmPtqu0kmKCiXoFMg":   "too long",
	"$argon2id$v=19$m=4096,t=2,p=17$5pwTovR+L0WI8b73PqeUEg$n43ByrmPtqu0kmKCiXoFMg":           "parallelism",
	"$argon2id$v=19$m=15,t=2,p=2$5pwTovR+L0WI8b73PqeUEg$n43ByrmPtqu0kmKCiXoFMg":              "less memory",
	"$argon2id$v=19$m=64,t=2,p=2$5pwTovR+L0WI8b73PqeUEh$n43ByrmPtqu0kmKCiXoFMg":              "base64", // stray bits
	"$argon2id$v=19$m=64,t=2,p=2$5pwTovR+L0WI8b73PqeUEg==$n43ByrmPtqu0kmKCiXoFMg":            "base64",
	"$argon2id$v=19$m=64,t=2,p=2$5pwTovR+L0WI8b73\nPqeUEg$n43ByrmPtqu0kmKCiXoFMg":            "base64",
	"$argon2id$v=19$m=64,t=2,p=2$$n43ByrmPtqu0kmKCiXoFMg":                                    "salt of 0",
	"$argon2id$v=19$m=64,t=2,p=2$5pwTovR+L0WI8b73PqeUEg$n40":                                 "key of 2",

	"$scrypt$ln=22,r=8,p=1$RyiF8B5jDOGcszZmTAmh1A$ch/JrgoIgMAmIKEiTbtIeaz1nRwXSbIF8PEvdTtGsNI":                        "memory",
	"$scrypt$ln=64,r=8,p=1$RyiF8B5jDOGcszZmTAmh1A$ch/JrgoIgMAmIKEiTbtIeaz1nRwXSbIF8PEvdTtGsNI":                        "memory",
	"$scrypt$ln=4,r=9999999999,p=1$RyiF8B5jDOGcszZmTAmh1A$ch/JrgoIgMAmIKEiTbtIeaz1nRwXSbIF8PEvdTtGsNI":                "memory",
	"$scrypt$ln=1,r=1000000,p=16$RyiF8B5jDOGcszZmTAmh1A$ch/JrgoIgMAmIKEiTbtIeaz1nRwXSbIF8PEvdTtGsNI":                  "memory",
	"$scrypt$ln=17,r=8,p=16$RyiF8B5jDOGcszZmTAmh1A$ch/JrgoIgMAmIKEiTbtIeaz1nRwXSbIF8PEvdTtGsNI":                       "too long",
	"$scrypt$ln=4,r=8,p=1,x=1$RyiF8B5jDOGcszZmTAmh1A$ch/JrgoIgMAmIKEiTbtIeaz1nRwXSbIF8PEvdTtGsNI":                     "parameters",
	"$scrypt$ln=4,r=8,p=1$RyiF8B5jDOGcszZmTAmh1A":                                                                     "unknown form",
	"scrypt:1023:8:1$Lt5InEdCDxQD5mFs$7e2aa54ad8dd39a555d4edfdb16270e99e1127fcf337edf680537abc3b01b769":               "power of two",
	"scrypt:1024:8:1$Lt5InEdCDxQD5mFs$7E2AA54AD8DD39A555D4EDFDB16270E9":                                               "hexadecimal",
	"scrypt:1024:8$Lt5InEdCDxQD5mFs$7e2aa54ad8dd39a555d4edfdb16270e9":                                                 "unknown form",
	"scrypt$16384$seasalt$8$1$Qj3+9PPyRjSJIebHnG81TMjsqtaIGxNQG/aEB/NYafTJ7tibgfYz71m0ldQESkXFRkdVCBhhY8mx7rQwite/Pw": "base64",

	"$pbkdf2-sha256$5000001$.6UI/S.nXIk8jcbdHx3Fhg$98jZicV16ODfEsEZeYPGHU3kbrUrvUEXOPimVSQDD44":       "rounds",
	"$pbkdf2-md5$6400$.6UI/S.nXIk8jcbdHx3Fhg$98jZicV16ODfEsEZeYPGHU3kbrUrvUEXOPimVSQDD44":             "digest",
	"$pbkdf2-sha256$6400$+6UI/S+nXIk8jcbdHx3Fhg$98jZicV16ODfEsEZeYPGHU3kbrUrvUEXOPimVSQDD44":          "base64",
	"$pbkdf2-sha256$i=6400,l=31$e6UI/SenXIk8jcbdHx3Fhg$98jZicV16ODfEsEZeYPGHU3kbrUrvUEXOPimVSQDD44":   "says 31",
	"$pbkdf2-sha256$i=6400$e6UI/SenXIk8jcbdHx3Fhg$98jZicV16ODfEsEZeYPGHU3kbrUrvUEXOPimVSQDD44":        "parameters",
	"pbkdf2_sha256$10000$$CWWFdHOWwPnki7HvkcqN9iA2T3KLW1cf2uZ5kvArtVY=":                               "salt of 0",
	"pbkdf2_sha256$10000$seasalt$CWWFdHOWwPnki7HvkcqN9iA2T3KLW1cf2uZ5kvArtVY":                         "base64",
	"pbkdf2:sha256$WRRGhJgeOhHXsM5H$ce46a4c5491c4164bc232841b3455cf9fff358b8964508e4ab2af57efcd249d5": "rounds",
	"pbkdf2:sha1:4000000$salt$" + strings.Repeat("00", 40):                                            "blocks",
	"pbkdf2:sha256:1$" + strings.Repeat("s", 129) + "$" + strings.Repeat("00", 32):                    "salt of 129",
	"pbkdf2:sha256:1$sa lt$" + strings.Repeat("00", 32):                                               "salt",
	"pbkdf2:sha256:1$sa\nlt$" + strings.Repeat("00", 32):                                              "salt",
	"pbkdf2_sha256$10000$sé$CWWFdHOWwPnki7HvkcqN9iA2T3KLW1cf2uZ5kvArtVY=":                             "salt",
	"pbkdf2:sha256:1$salt$" + strings.Repeat("00", 65):                                                "key of 65",
	"pbkdf2:sha256:1$salt$" + strings.Repeat("00", 300):                                               "621 bytes",
	"$mandate$p=9$2a$04$urM23mYOokEHXk.kAkY.MeXzsBgKHKjr1B3Faln4GOEFvMRcP5M6q":                        "pepper",
	"$mandate$p=0$2a$31$urM23mYOokEHXk.kAkY.MeXzsBgKHKjr1B3Faln4GOEFvMRcP5M6q":                        "pepper",
	"$mandate$p=0$2a$04$nope": "pepper",
}

// A hash that costs minutes or gigabytes would be an attack on every service that
// verifies it, wherever it comes from.
func TestForeignHashesAreBounded(t *testing.T) {
	t.Parallel()
	h := newHasher(t)
	for hash, want := range refused {
		err := h.Check(hash)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: Check: got %v, want %q", hash, err, want)
		}
		if len(hash) > 30 && err != nil && strings.Contains(err.Error(), hash[len(hash)-15:]) {
			t.Errorf("the error repeats the hash: %v", err)
		}
		if ok, err := h.Verify(t.Context(), hash, "x"); ok || err == nil {
			t.Errorf("%s: Verify: %t, %v", hash, ok, err)
		}
	}
	for _, fine := range []string{ // the defaults and recommendations of others
		"$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=19$m=102400,t=2,p=8$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=19$m=262144,t=8,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"scrypt:131072:8:1$salt$" + strings.Repeat("00", 64),
		"$scrypt$ln=16,r=8,p=1$RyiF8B5jDOGcszZmTAmh1A$ch/JrgoIgMAmIKEiTbtIeaz1nRwXSbIF8PEvdTtGsNI",
		"pbkdf2_sha256$1200000$seasalt$CWWFdHOWwPnki7HvkcqN9iA2T3KLW1cf2uZ5kvArtVY=",
		"$2y$15$urM23mYOokEHXk.kAkY.MeXzsBgKHKjr1B3Faln4GOEFvMRcP5M6q",
		"$mandate$p=0$2a$12$urM23mYOokEHXk.kAkY.MeXzsBgKHKjr1B3Faln4GOEFvMRcP5M6q",
	} {
		if err := h.Check(fine); err != nil {
			t.Errorf("%s: %v", fine, err)
		}
	}
}

// djangoSHA256 is Django's BCryptSHA256PasswordHasher, which this package does not
// know.
type djangoSHA256 struct{ err error }

func (djangoSHA256) Recognizes(hash string) bool {
	return strings.HasPrefix(hash, "bcrypt_sha256$$2b$")
}

func (d djangoSHA256) Verify(_ context.Context, hash, password string) (bool, error) {
	sum := sha256.Sum256([]byte(password))
	raw := strings.TrimPrefix(hash, "bcrypt_sha256$")
	return bcrypt.CompareHashAndPassword([]byte(raw), []byte(hex.EncodeToString(sum[:]))) == nil, d.err
}

func TestVerifiersOfTheService(t *testing.T) {
	t.Parallel()
	const hash = "bcrypt_sha256$$2b$04$b9ChueSWlWzAQxl1EVlq1u7SBtevql5MOOSAx3zbkcbG1lv71ObuO" // made by passlib 1.7.4
	hashes := 0
	with := newHasher(t, func(c *users.HasherConfig) {
		c.Foreign, c.OnHash = []users.HashVerifier{djangoSHA256{}}, func() { hashes++ }
	})
	if err := with.Check(hash); err != nil {
		t.Error(err)
	}
	for password, want := range map[string]bool{"lètmein": true, "letmein": false} {
		if ok, err := with.Verify(t.Context(), hash, password); ok != want || err != nil {
			t.Errorf("%s: %t, %v", password, ok, err)
		}
	}
	if hashes != 2 || !with.NeedsRehash(hash, bcrypt.MinCost) {
		t.Errorf("%d hashes were counted, and NeedsRehash is %t", hashes, with.NeedsRehash(hash, bcrypt.MinCost))
	}
	if err := newHasher(t).Check(hash); err == nil {
		t.Error("a form that nobody knows was taken")
	}
	// What a verifier says of Mandate's own hashes does not count.
	greedy := newHasher(t, func(c *users.HasherConfig) { c.Foreign = []users.HashVerifier{anything{}} })
	own, err := greedy.Hash(t.Context(), bcrypt.MinCost, "x")
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := greedy.Verify(t.Context(), own, "y"); ok || err != nil {
		t.Errorf("a verifier decides over Mandate's own hash: %t, %v", ok, err)
	}
	failing := newHasher(t, func(c *users.HasherConfig) {
		c.Foreign = []users.HashVerifier{djangoSHA256{errors.New("out of order")}}
	})
	if _, err := failing.Verify(t.Context(), hash, "lètmein"); err == nil {
		t.Error("an error of a verifier is lost")
	}
}

type anything struct{}

func (anything) Recognizes(string) bool                               { return true }
func (anything) Verify(context.Context, string, string) (bool, error) { return true, nil }

// waiting is a verifier that holds its slot until it is let go.
type waiting struct{ entered, leave chan struct{} }

func (waiting) Recognizes(string) bool { return true }
func (w waiting) Verify(context.Context, string, string) (bool, error) {
	w.entered <- struct{}{}
	<-w.leave
	return true, nil
}

// Without slots for foreign hashes too, a crowd would take memory without bound.
func TestForeignHashesTakeSlots(t *testing.T) {
	t.Parallel()
	w := waiting{make(chan struct{}), make(chan struct{})}
	h := newHasher(t, func(c *users.HasherConfig) {
		c.Slots, c.QueuePerSlot, c.QueueDeadline, c.Foreign = 1, 1, time.Millisecond, []users.HashVerifier{w}
	})
	first := make(chan error, 1)
	go func() {
		_, err := h.Verify(context.Background(), "first", "x")
		first <- err
	}()
	<-w.entered
	if _, err := h.Verify(t.Context(), "second", "x"); !errors.Is(err, users.ErrBusy) {
		t.Errorf("while the only slot is taken: %v", err)
	}
	close(w.leave)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestForeignHashesAreRenewedAtSignIn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u := b.create(t, "ada@example.com")
	put := func(hash string) {
		t.Helper()
		if _, err := b.db.Collection("users").UpdateOne(t.Context(), bson.M{"_id": u.ID}, bson.M{"$set": bson.M{"password_hash": hash}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range vectors {
		put(v.hash)
		before := b.hashes.Load()
		proof, err := b.Authenticate(t.Context(), users.Credentials{Email: "ada@example.com", Password: v.password})
		if err != nil {
			t.Fatalf("%s: %v", v.source, err)
		}
		if n := b.hashes.Load() - before; n != 1 {
			t.Errorf("%s: an attempt cost %d hashes", v.source, n)
		}
		if b.stored(t, u.ID) != v.hash {
			t.Errorf("%s: renewed before the sign-in was complete", v.source)
		}
		if _, err := b.Confirm(t.Context(), proof); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(b.stored(t, u.ID), "$mandate$p=0$2a$04$") {
			t.Errorf("%s: not renewed: %s", v.source, b.stored(t, u.ID))
		}
		if err := b.login(t, "ada@example.com", v.password); err != nil {
			t.Errorf("%s: after the renewal: %v", v.source, err)
		}
	}
	// A wrong password renews nothing, and a change of password meanwhile stays.
	put(vectors[0].hash)
	if err := b.login(t, "ada@example.com", "wrong"); !errors.Is(err, users.ErrInvalidCredentials) || b.stored(t, u.ID) != vectors[0].hash {
		t.Errorf("a wrong password: %v, %s", err, b.stored(t, u.ID))
	}
	proof, err := b.Authenticate(t.Context(), users.Credentials{Email: "ada@example.com", Password: vectors[0].password})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.SetPassword(t.Context(), u.ID, "another long passphrase"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Confirm(t.Context(), proof); !errors.Is(err, users.ErrChanged) {
		t.Errorf("a sign-in with the old password, after a change: %v", err)
	}
}

func (b *bench) stored(tb testing.TB, id string) string {
	tb.Helper()
	var doc struct {
		Hash string `bson:"password_hash"`
	}
	if err := b.db.Collection("users").FindOne(tb.Context(), bson.M{"_id": id}).Decode(&doc); err != nil {
		tb.Fatal(err)
	}
	return doc.Hash
}

func FuzzForeignHash(f *testing.F) {
	for _, v := range vectors {
		f.Add(v.hash)
	}
	for hash := range refused {
		f.Add(hash)
	}
	h := newHasher(f, func(c *users.HasherConfig) {
		c.Peppers = []users.Pepper{{ID: "1", Key: secret.FromString(strings.Repeat("k", 32))}}
	})
	f.Fuzz(func(t *testing.T, hash string) {
		err := h.Check(hash)
		if err == nil && (len(hash) > 512 || strings.ContainsAny(hash, "\n\r\x00 ")) {
			t.Errorf("%q was taken", hash)
		}
		if err != nil {
			if ok, err := h.Verify(t.Context(), hash, "x"); ok || err == nil {
				t.Errorf("%q is refused by Check and not by Verify: %t, %v", hash, ok, err)
			}
		}
	})
}
