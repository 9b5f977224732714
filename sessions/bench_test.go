package sessions_test

import (
	"testing"

	"go.mongodb.org/mongo-driver/bson"
)

// BenchmarkRefresh is P7; BenchmarkFindOneAndUpdate is what it is compared with.
func BenchmarkRefresh(b *testing.B) {
	s := setup(b)
	token := s.signIn(b).RefreshToken
	for b.Loop() {
		issued, err := s.Refresh(s.ctx(), token, laptop)
		if err != nil {
			b.Fatal(err)
		}
		token = issued.RefreshToken
	}
}

func BenchmarkFindOneAndUpdate(b *testing.B) {
	s := setup(b)
	id := s.signIn(b).SessionID
	for b.Loop() {
		if err := s.coll().FindOneAndUpdate(s.ctx(), bson.M{"_id": id}, bson.M{"$inc": bson.M{"generation": int64(1)}}).Err(); err != nil {
			b.Fatal(err)
		}
	}
}
