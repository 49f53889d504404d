#!/bin/sh
# Run once, by the PostgreSQL image, when the data folder is empty: the two roles and the database.
# The application's role can write a fact and never change it; what it may do is granted by the migrations.
set -eu

psql --no-psqlrc --set ON_ERROR_STOP=1 --username postgres --dbname postgres \
    --set owner_password="$KAMENG_OWNER_PASSWORD" --set app_password="$KAMENG_APP_PASSWORD" <<'SQL'
CREATE ROLE kameng_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'owner_password';
CREATE ROLE kameng_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'app_password';
CREATE DATABASE kameng OWNER kameng_owner;
REVOKE ALL ON DATABASE kameng FROM PUBLIC;
GRANT CONNECT ON DATABASE kameng TO kameng_app;
SQL
