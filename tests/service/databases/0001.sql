BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE arrival (
	id INTEGER NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	name VARCHAR(1024) NOT NULL, 
	source VARCHAR(16) NOT NULL, 
	sender VARCHAR(128) NOT NULL, 
	"key" VARCHAR(255), 
	received_ms BIGINT NOT NULL, 
	study_id INTEGER, 
	engine_id INTEGER, 
	state VARCHAR(16) NOT NULL, 
	rank INTEGER NOT NULL, 
	answer VARCHAR(16), 
	region VARCHAR(32), 
	probability FLOAT, 
	review VARCHAR(16), 
	deleted_ms BIGINT, 
	CONSTRAINT pk_arrival PRIMARY KEY (id), 
	CONSTRAINT fk_arrival_engine_id FOREIGN KEY(engine_id) REFERENCES engine (id), 
	CONSTRAINT fk_arrival_sha256 FOREIGN KEY(sha256) REFERENCES blob (sha256), 
	CONSTRAINT fk_arrival_study_id FOREIGN KEY(study_id) REFERENCES study (id), 
	CONSTRAINT uq_arrival_sender_key UNIQUE (sender, "key")
);
INSERT INTO "arrival" VALUES(1,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','hand.png','http','Ada',NULL,1796072796347,1,1,'answered',0,'positive','hand',0.9,NULL,NULL);
CREATE TABLE audit (
	id INTEGER NOT NULL, 
	at_ms BIGINT NOT NULL, 
	actor VARCHAR(128) NOT NULL, 
	action VARCHAR(64) NOT NULL, 
	subject VARCHAR(128) NOT NULL, 
	detail JSON NOT NULL, 
	previous VARCHAR(64) NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	CONSTRAINT pk_audit PRIMARY KEY (id)
);
INSERT INTO "audit" VALUES(1,1796072796364,'Ada','receive','picture/1','{"sha256": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "source": "http"}','0000000000000000000000000000000000000000000000000000000000000000','f8379048bc478346e806d9d66943ae7bfc7eb6fd56c7b45c23c6730dccd3c66a');
INSERT INTO "audit" VALUES(2,1796072796495,'Ada','review','result/1','{}','f8379048bc478346e806d9d66943ae7bfc7eb6fd56c7b45c23c6730dccd3c66a','2eb3e9708e7d99ba723b72948a0b8b5c799be056cee4d0139d39fc9b0668c17b');
CREATE TABLE blob (
	sha256 VARCHAR(64) NOT NULL, 
	size BIGINT NOT NULL, 
	created_ms BIGINT NOT NULL, 
	held BOOLEAN NOT NULL, 
	deleted_ms BIGINT, 
	CONSTRAINT pk_blob PRIMARY KEY (sha256)
);
INSERT INTO "blob" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',1000,1796072796347,0,NULL);
CREATE TABLE caller (
	id INTEGER NOT NULL, 
	title VARCHAR(16) NOT NULL, 
	host VARCHAR(64) NOT NULL, 
	last_ms BIGINT NOT NULL, 
	count INTEGER NOT NULL, 
	CONSTRAINT pk_caller PRIMARY KEY (id), 
	CONSTRAINT uq_caller_title_host UNIQUE (title, host)
);
CREATE TABLE detail (
	result_id INTEGER NOT NULL, 
	outcome JSON NOT NULL, 
	"row" JSON NOT NULL, 
	CONSTRAINT pk_detail PRIMARY KEY (result_id), 
	CONSTRAINT fk_detail_result_id FOREIGN KEY(result_id) REFERENCES result (id)
);
INSERT INTO "detail" VALUES(1,'{"status": "ok"}','{"answer": "positive"}');
CREATE TABLE engine (
	id INTEGER NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	weights TEXT NOT NULL, 
	digests JSON NOT NULL, 
	settings JSON NOT NULL, 
	version VARCHAR(64) NOT NULL, 
	card JSON NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	created_ms BIGINT NOT NULL, 
	CONSTRAINT pk_engine PRIMARY KEY (id), 
	CONSTRAINT uq_engine_digest UNIQUE (digest)
);
INSERT INTO "engine" VALUES(1,'0000000000000000000000000000000000000000000000000000000000000000','weights','{}','{}','0','{}','active',0);
CREATE TABLE event (
	id INTEGER NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	subject INTEGER, 
	data JSON NOT NULL, 
	at_ms BIGINT NOT NULL, 
	CONSTRAINT pk_event PRIMARY KEY (id)
);
INSERT INTO "event" VALUES(1,'received',1,'{}',1796072796357);
INSERT INTO "event" VALUES(2,'judged',1,'{}',1796072796429);
CREATE TABLE instance (
	id INTEGER NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	study_uid VARCHAR(64) NOT NULL, 
	series_uid VARCHAR(64) NOT NULL, 
	sop_uid VARCHAR(64) NOT NULL, 
	sop_class VARCHAR(64) NOT NULL, 
	modality VARCHAR(16) NOT NULL, 
	patient_id VARCHAR(64) NOT NULL, 
	patient_name VARCHAR(256) NOT NULL, 
	accession VARCHAR(64) NOT NULL, 
	study_date VARCHAR(8) NOT NULL, 
	study_time VARCHAR(16) NOT NULL, 
	study_id VARCHAR(64) NOT NULL, 
	header JSON NOT NULL, 
	CONSTRAINT pk_instance PRIMARY KEY (id), 
	CONSTRAINT fk_instance_sha256 FOREIGN KEY(sha256) REFERENCES blob (sha256), 
	CONSTRAINT uq_instance_sha256 UNIQUE (sha256)
);
CREATE TABLE job (
	id INTEGER NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	engine_id INTEGER NOT NULL, 
	name VARCHAR(1024) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	priority INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	blame INTEGER NOT NULL, 
	owner VARCHAR(64), 
	lease_ms BIGINT, 
	error TEXT, 
	created_ms BIGINT NOT NULL, 
	finished_ms BIGINT, 
	CONSTRAINT pk_job PRIMARY KEY (id), 
	CONSTRAINT fk_job_engine_id FOREIGN KEY(engine_id) REFERENCES engine (id), 
	CONSTRAINT fk_job_sha256 FOREIGN KEY(sha256) REFERENCES blob (sha256), 
	CONSTRAINT uq_job_sha256_engine_id UNIQUE (sha256, engine_id)
);
INSERT INTO "job" VALUES(1,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',1,'hand.png','done',2,1,0,'process',1796072856373,NULL,1796072796356,1796072796389);
CREATE TABLE outbox (
	id INTEGER NOT NULL, 
	object_uid VARCHAR(64) NOT NULL, 
	peer_id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	source VARCHAR(64) NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	tries INTEGER NOT NULL, 
	next_ms BIGINT NOT NULL, 
	created_ms BIGINT NOT NULL, 
	transaction_uid VARCHAR(64), 
	committed_ms BIGINT, 
	error TEXT, 
	CONSTRAINT pk_outbox PRIMARY KEY (id), 
	CONSTRAINT fk_outbox_peer_id FOREIGN KEY(peer_id) REFERENCES peer (id), 
	CONSTRAINT fk_outbox_study_id FOREIGN KEY(study_id) REFERENCES study (id), 
	CONSTRAINT uq_outbox_object_uid_peer_id UNIQUE (object_uid, peer_id)
);
CREATE TABLE peer (
	id INTEGER NOT NULL, 
	title VARCHAR(16) NOT NULL, 
	host VARCHAR(255) NOT NULL, 
	port INTEGER, 
	receive BOOLEAN NOT NULL, 
	send BOOLEAN NOT NULL, 
	tls BOOLEAN NOT NULL, 
	commitment BOOLEAN NOT NULL, 
	created_ms BIGINT NOT NULL, 
	CONSTRAINT pk_peer PRIMARY KEY (id), 
	CONSTRAINT uq_peer_title_host UNIQUE (title, host)
);
CREATE TABLE result (
	id INTEGER NOT NULL, 
	job_id INTEGER NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	engine_id INTEGER NOT NULL, 
	frame INTEGER NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	answer VARCHAR(16) NOT NULL, 
	region VARCHAR(32), 
	probability FLOAT, 
	rank INTEGER NOT NULL, 
	created_ms BIGINT NOT NULL, 
	CONSTRAINT pk_result PRIMARY KEY (id), 
	CONSTRAINT fk_result_engine_id FOREIGN KEY(engine_id) REFERENCES engine (id), 
	CONSTRAINT fk_result_job_id FOREIGN KEY(job_id) REFERENCES job (id), 
	CONSTRAINT uq_result_job_id_frame UNIQUE (job_id, frame)
);
INSERT INTO "result" VALUES(1,1,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',1,-1,'ok','positive','hand',0.9,0,1796072796389);
CREATE TABLE review (
	id INTEGER NOT NULL, 
	result_id INTEGER NOT NULL, 
	reader_id INTEGER NOT NULL, 
	blind BOOLEAN NOT NULL, 
	verdict VARCHAR(16) NOT NULL, 
	region VARCHAR(32), 
	marks JSON NOT NULL, 
	comment TEXT NOT NULL, 
	supersedes INTEGER, 
	created_ms BIGINT NOT NULL, 
	CONSTRAINT pk_review PRIMARY KEY (id), 
	CONSTRAINT fk_review_reader_id FOREIGN KEY(reader_id) REFERENCES user (id), 
	CONSTRAINT fk_review_result_id FOREIGN KEY(result_id) REFERENCES result (id), 
	CONSTRAINT fk_review_supersedes FOREIGN KEY(supersedes) REFERENCES review (id)
);
INSERT INTO "review" VALUES(1,1,1,0,'fracture','hand','[{"x": 1, "y": 2}]','',NULL,2);
CREATE TABLE rule (
	id INTEGER NOT NULL, 
	days INTEGER NOT NULL, 
	state VARCHAR(16), 
	created_ms BIGINT NOT NULL, 
	CONSTRAINT pk_rule PRIMARY KEY (id)
);
CREATE TABLE session (
	hash VARCHAR(64) NOT NULL, 
	user_id INTEGER NOT NULL, 
	created_ms BIGINT NOT NULL, 
	seen_ms BIGINT NOT NULL, 
	CONSTRAINT pk_session PRIMARY KEY (hash), 
	CONSTRAINT fk_session_user_id FOREIGN KEY(user_id) REFERENCES user (id)
);
CREATE TABLE setting (
	"key" VARCHAR(64) NOT NULL, 
	value JSON NOT NULL, 
	CONSTRAINT pk_setting PRIMARY KEY ("key")
);
CREATE TABLE study (
	id INTEGER NOT NULL, 
	"key" VARCHAR(128) NOT NULL, 
	uid VARCHAR(64), 
	identity JSON, 
	last_seen_ms BIGINT NOT NULL, 
	stable_ms BIGINT, 
	pictures INTEGER NOT NULL, 
	rank INTEGER NOT NULL, 
	CONSTRAINT pk_study PRIMARY KEY (id), 
	CONSTRAINT uq_study_key UNIQUE ("key")
);
INSERT INTO "study" VALUES(1,'dicom/c47f5b18b8a430e6','1.2.3','{"StudyInstanceUID": "1.2.3"}',1796072796400,NULL,1,0);
CREATE TABLE token (
	id INTEGER NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	name VARCHAR(128) NOT NULL, 
	role VARCHAR(16) NOT NULL, 
	created_ms BIGINT NOT NULL, 
	revoked_ms BIGINT, 
	CONSTRAINT pk_token PRIMARY KEY (id), 
	CONSTRAINT uq_token_hash UNIQUE (hash)
);
CREATE TABLE user (
	id INTEGER NOT NULL, 
	name VARCHAR(128) NOT NULL, 
	role VARCHAR(16) NOT NULL, 
	password VARCHAR(255) NOT NULL, 
	active BOOLEAN NOT NULL, 
	blind BOOLEAN NOT NULL, 
	created_ms BIGINT NOT NULL, 
	CONSTRAINT pk_user PRIMARY KEY (id), 
	CONSTRAINT uq_user_name UNIQUE (name)
);
INSERT INTO "user" VALUES(1,'Ada','admin','none',1,0,1);
CREATE TABLE watched (
	path VARCHAR(64) NOT NULL, 
	size BIGINT NOT NULL, 
	changed_ns BIGINT NOT NULL, 
	sha256 VARCHAR(64), 
	CONSTRAINT pk_watched PRIMARY KEY (path)
);
CREATE INDEX ix_study_newest ON study (last_seen_ms, id) WHERE pictures > 0;
CREATE INDEX ix_study_stable_ms_last_seen_ms ON study (stable_ms, last_seen_ms);
CREATE INDEX ix_study_urgency ON study (rank, id) WHERE pictures > 0;
CREATE INDEX ix_watched_sha256 ON watched (sha256);
CREATE INDEX ix_arrival_received_ms ON arrival (received_ms);
CREATE INDEX ix_arrival_region_deleted_ms_rank_id_review ON arrival (region, deleted_ms, rank, id, review);
CREATE INDEX ix_arrival_reviewed ON arrival (deleted_ms, rank, id) WHERE review IS NOT NULL;
CREATE INDEX ix_arrival_sha256 ON arrival (sha256);
CREATE INDEX ix_arrival_study_id_deleted_ms_rank_id ON arrival (study_id, deleted_ms, rank, id);
CREATE INDEX ix_arrival_unreviewed ON arrival (deleted_ms, rank, id) WHERE review IS NULL;
CREATE INDEX ix_arrival_urgency ON arrival (rank, id) WHERE deleted_ms IS NULL;
CREATE INDEX ix_instance_accession ON instance (accession);
CREATE INDEX ix_instance_patient_id ON instance (patient_id);
CREATE INDEX ix_instance_series_uid ON instance (series_uid);
CREATE INDEX ix_instance_sop_uid ON instance (sop_uid);
CREATE INDEX ix_instance_study_date ON instance (study_date);
CREATE INDEX ix_instance_study_uid_series_uid ON instance (study_uid, series_uid);
CREATE INDEX ix_job_engine_id_state_id ON job (engine_id, state, id);
CREATE INDEX ix_job_engine_id_state_priority_id ON job (engine_id, state, priority, id);
CREATE INDEX ix_outbox_peer_id_study_id ON outbox (peer_id, study_id);
CREATE INDEX ix_outbox_sha256 ON outbox (sha256);
CREATE INDEX ix_outbox_source ON outbox (source);
CREATE INDEX ix_outbox_state_next_ms ON outbox (state, next_ms);
CREATE INDEX ix_outbox_transaction_uid ON outbox (transaction_uid);
CREATE INDEX ix_result_engine_id_created_ms ON result (engine_id, created_ms);
CREATE INDEX ix_result_sha256_engine_id ON result (sha256, engine_id);
CREATE INDEX ix_review_reader_id_id ON review (reader_id, id);
CREATE INDEX ix_review_result_id_reader_id_id ON review (result_id, reader_id, id);
COMMIT;
