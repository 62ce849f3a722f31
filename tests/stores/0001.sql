BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE changes (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	collection_id INTEGER NOT NULL, 
	chunk_id BIGINT NOT NULL, 
	op INTEGER NOT NULL, 
	token BIGINT NOT NULL, 
	CONSTRAINT fk_changes_collection_id_collections FOREIGN KEY(collection_id) REFERENCES collections (id) ON DELETE CASCADE
);
INSERT INTO "changes" VALUES(8,1,6,-1,7);
INSERT INTO "changes" VALUES(9,1,7,-1,7);
INSERT INTO "changes" VALUES(10,1,7,1,7);
INSERT INTO "changes" VALUES(11,2,8,1,7);
CREATE TABLE chunks (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	document_id INTEGER NOT NULL, 
	collection_id INTEGER NOT NULL, 
	ordinal INTEGER NOT NULL, 
	start INTEGER NOT NULL, 
	"end" INTEGER NOT NULL, 
	line_start INTEGER NOT NULL, 
	line_end INTEGER NOT NULL, 
	page INTEGER, 
	tokens INTEGER NOT NULL, 
	heading JSON NOT NULL, 
	vector_key BLOB NOT NULL, 
	text VARCHAR NOT NULL, 
	CONSTRAINT fk_chunks_collection_id_collections FOREIGN KEY(collection_id) REFERENCES collections (id) ON DELETE CASCADE, 
	CONSTRAINT fk_chunks_document_id_documents FOREIGN KEY(document_id) REFERENCES documents (id) ON DELETE CASCADE, 
	CONSTRAINT uq_chunks_document_id_ordinal UNIQUE (document_id, ordinal)
);
INSERT INTO "chunks" VALUES(1,1,1,0,0,18,1,1,NULL,5,'["Guide","Rotate"]',X'EC5D0A85063FA29FCB991C42509EF358','alpha rotates keys');
INSERT INTO "chunks" VALUES(2,1,1,1,19,30,2,2,NULL,5,'["Guide","Rotate"]',X'93B98C8CED0A86303C76396896F05BF3','alpha again');
INSERT INTO "chunks" VALUES(3,2,1,0,0,15,1,1,NULL,5,'[]',X'72EB22F7ABC7E6343EF544A4998B804F','beta über alles');
INSERT INTO "chunks" VALUES(4,3,1,0,0,9,1,1,3,5,'[]',X'EB44D799BEC7F5B9F49FE075FC30AA9C','gamma 日本語');
INSERT INTO "chunks" VALUES(5,4,1,0,0,5,1,1,7,5,'[]',X'7FE3792FBDD937674BE221ED030739DA','delta');
INSERT INTO "chunks" VALUES(7,6,1,0,0,18,1,1,NULL,5,'[]',X'E097F8ACF0A808E8D62C7E385F355A27','epsilon moved here');
INSERT INTO "chunks" VALUES(8,8,2,0,0,18,1,1,NULL,5,'[]',X'59EFD46C159C201A1AB1B6E02A1FB528','another collection');
CREATE TABLE collections (
	id INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	generation BIGINT NOT NULL, 
	token BIGINT NOT NULL, 
	log_start BIGINT NOT NULL, 
	CONSTRAINT pk_collections PRIMARY KEY (id), 
	CONSTRAINT uq_collections_name UNIQUE (name)
);
INSERT INTO "collections" VALUES(1,'default',10,7,8);
INSERT INTO "collections" VALUES(2,'other',11,7,0);
CREATE TABLE document_texts (
	document_id INTEGER NOT NULL, 
	length INTEGER NOT NULL, 
	text BLOB NOT NULL, 
	CONSTRAINT pk_document_texts PRIMARY KEY (document_id), 
	CONSTRAINT fk_document_texts_document_id_documents FOREIGN KEY(document_id) REFERENCES documents (id) ON DELETE CASCADE
);
INSERT INTO "document_texts" VALUES(1,30,X'785E4BCC29C8485428CA2F492C492D56C84EAD2CE64A040B25A62766E60100AFAB0B35');
INSERT INTO "document_texts" VALUES(2,15,X'785E4B4A2D495438BC2729B54821312727B51800392706A6');
INSERT INTO "document_texts" VALUES(3,9,X'785E4B4FCCCD4D5478367DE9B3396B5EAC9A07003C9108A4');
INSERT INTO "document_texts" VALUES(4,5,X'785E4B49CD29490400061A020B');
INSERT INTO "document_texts" VALUES(6,18,X'785E4B2D28CECCC9CF53C8CD2F4B4D51C8482D4A050043B206FA');
INSERT INTO "document_texts" VALUES(7,0,X'785E030000000001');
INSERT INTO "document_texts" VALUES(8,18,X'785E4BCCCB2FC9482D5248CECFC9494D2EC9CCCF03004434073E');
CREATE TABLE documents (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	collection_id INTEGER NOT NULL, 
	path VARCHAR NOT NULL, 
	title VARCHAR NOT NULL, 
	sha256 VARCHAR NOT NULL, 
	size BIGINT NOT NULL, 
	mtime_ns BIGINT NOT NULL, 
	checked_ns BIGINT NOT NULL, 
	loader VARCHAR NOT NULL, 
	metadata JSON NOT NULL, 
	indexed_at FLOAT NOT NULL, 
	CONSTRAINT fk_documents_collection_id_collections FOREIGN KEY(collection_id) REFERENCES collections (id) ON DELETE CASCADE, 
	CONSTRAINT uq_documents_collection_id_path UNIQUE (collection_id, path)
);
INSERT INTO "documents" VALUES(1,1,'docs/a.md','Keys','aa',10,1,2,'text-1','{"lang":"en","size":10,"draft":true,"tags":["x","Y",3,true],"author":{"name":"Ada","born":{"year":1815}}}',1700000000.0);
INSERT INTO "documents" VALUES(2,1,'docs/ü.md','','aa',10,1,2,'text-1','{"lang":"de","size":200,"draft":false,"note":null}',1700000000.0);
INSERT INTO "documents" VALUES(3,1,'src/c.py','Code','aa',10,1,2,'text-1','{"lang":"en","size":"10","weight":1.5}',1700000000.0);
INSERT INTO "documents" VALUES(4,1,'src/d.py','','aa',10,1,2,'text-1','{"odd\"key''$.":"x","a.b":1,"long":"words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words words "}',1700000000.0);
INSERT INTO "documents" VALUES(6,1,'new name.txt','','aa',10,1,2,'text-1','{"moved":true}',1700000000.0);
INSERT INTO "documents" VALUES(7,1,'empty.txt','','aa',10,1,2,'text-1','{}',1700000000.0);
INSERT INTO "documents" VALUES(8,2,'docs/a.md','','aa',10,1,2,'text-1','{"lang":"en"}',1700000000.0);
CREATE TABLE encoders (
	id INTEGER NOT NULL, 
	fingerprint VARCHAR NOT NULL, 
	locator VARCHAR NOT NULL, 
	dimensions INTEGER NOT NULL, 
	card JSON NOT NULL, 
	CONSTRAINT pk_encoders PRIMARY KEY (id), 
	CONSTRAINT uq_encoders_fingerprint UNIQUE (fingerprint)
);
INSERT INTO "encoders" VALUES(1,'earlier-encoder','bundled',8,'{"name":"earlier-encoder","prompts":{"q":"é"}}');
INSERT INTO "encoders" VALUES(2,'test-encoder','bundled',8,'{"name":"test-encoder","prompts":{"q":"é"}}');
CREATE TABLE failures (
	id INTEGER NOT NULL, 
	collection_id INTEGER NOT NULL, 
	path VARCHAR NOT NULL, 
	reason VARCHAR NOT NULL, 
	sha256 VARCHAR NOT NULL, 
	size BIGINT NOT NULL, 
	mtime_ns BIGINT NOT NULL, 
	failed_at FLOAT NOT NULL, 
	CONSTRAINT pk_failures PRIMARY KEY (id), 
	CONSTRAINT fk_failures_collection_id_collections FOREIGN KEY(collection_id) REFERENCES collections (id) ON DELETE CASCADE, 
	CONSTRAINT uq_failures_collection_id_path UNIQUE (collection_id, path)
);
INSERT INTO "failures" VALUES(1,1,'broken.pdf','the file ends in the middle','ff',12,3,1700000000.0);
CREATE TABLE roots (
	id INTEGER NOT NULL, 
	collection_id INTEGER NOT NULL, 
	path VARCHAR NOT NULL, 
	CONSTRAINT pk_roots PRIMARY KEY (id), 
	CONSTRAINT fk_roots_collection_id_collections FOREIGN KEY(collection_id) REFERENCES collections (id) ON DELETE CASCADE, 
	CONSTRAINT uq_roots_collection_id_path UNIQUE (collection_id, path)
);
INSERT INTO "roots" VALUES(1,1,'docs');
CREATE TABLE settings (
	"key" VARCHAR NOT NULL, 
	value JSON NOT NULL, 
	CONSTRAINT pk_settings PRIMARY KEY ("key")
);
INSERT INTO "settings" VALUES('encoder',2);
INSERT INTO "settings" VALUES('activations','[{"fingerprint":"earlier-encoder","locator":"bundled","activated_at":1700000000.0,"note":"first"},{"fingerprint":"test-encoder","locator":"bundled","activated_at":1700000000.0,"note":"better"}]');
INSERT INTO "settings" VALUES('previous_encoder',1);
INSERT INTO "settings" VALUES('previous_encoder_covers',0);
INSERT INTO "settings" VALUES('dense/1','{"index":"auto","memory_mb":500}');
CREATE TABLE vectors (
	id INTEGER NOT NULL, 
	encoder_id INTEGER NOT NULL, 
	"key" BLOB NOT NULL, 
	data BLOB NOT NULL, 
	CONSTRAINT pk_vectors PRIMARY KEY (id), 
	CONSTRAINT fk_vectors_encoder_id_encoders FOREIGN KEY(encoder_id) REFERENCES encoders (id) ON DELETE CASCADE, 
	CONSTRAINT uq_vectors_key_encoder_id UNIQUE ("key", encoder_id)
);
INSERT INTO "vectors" VALUES(1,1,X'EC5D0A85063FA29FCB991C42509EF358',X'8C1F2F3441B4D3B1F831C1B99A340637');
INSERT INTO "vectors" VALUES(2,2,X'EC5D0A85063FA29FCB991C42509EF358',X'8C1F2F3441B4D3B1F831C1B99A340637');
INSERT INTO "vectors" VALUES(3,2,X'93B98C8CED0A86303C76396896F05BF3',X'7EB8C4AE13B7D02CF6B688B42E31BAB6');
INSERT INTO "vectors" VALUES(4,2,X'72EB22F7ABC7E6343EF544A4998B804F',X'C0392CAD2831E6B5DD2AA2B6612CE5B5');
INSERT INTO "vectors" VALUES(5,2,X'EB44D799BEC7F5B9F49FE075FC30AA9C',X'C7B2EEB489B88423F63511B606B8DAAA');
INSERT INTO "vectors" VALUES(6,2,X'7FE3792FBDD937674BE221ED030739DA',X'2D32983607B2EDADB1B2DEB18EBA0FA4');
INSERT INTO "vectors" VALUES(7,2,X'8BFA15601C2FFDADAB6701A7913BCB96',X'EEB0F5A56A33FDB979B7093479AF2034');
INSERT INTO "vectors" VALUES(8,2,X'E097F8ACF0A808E8D62C7E385F355A27',X'CB3687331C2F7DB1D6B80C380AB16D34');
INSERT INTO "vectors" VALUES(9,2,X'59EFD46C159C201A1AB1B6E02A1FB528',X'E3B51EB57BAA49A9A8346AB9BA1F6E37');
CREATE INDEX ix_changes_collection_id_seq ON changes (collection_id, seq);
CREATE INDEX ix_chunks_collection_id ON chunks (collection_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('documents',8);
INSERT INTO "sqlite_sequence" VALUES('chunks',8);
INSERT INTO "sqlite_sequence" VALUES('changes',11);
COMMIT;
