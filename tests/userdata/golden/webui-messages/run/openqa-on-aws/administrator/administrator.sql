-- The people who administer: openQA finds them at their first sign-in by id and provider, and keeps what they may do.
-- And those that machines sign in as: an administrator, and the workers, who only do jobs. Each has today's API key
-- and no other. The keys travel as parameters, so that no server's log quotes them.
-- A session names a user without the provider: machines have names that no provider gives to anybody. Somebody may
-- have those that they had before. A key is a personal access token, too, unless its user's name has a colon
-- (OpenQA::Shared::Controller::Auth): the workers' serves by the header alone, by which nginx knows it.
begin;
delete from api_keys using users where users.id = api_keys.user_id and users.provider = ''
  and users.username in ('openqa-on-aws', 'openqa-on-aws-workers', 'openQA on AWS / workers');
update users set is_operator = 0, is_admin = 0
  where provider = '' and username in ('openqa-on-aws', 'openqa-on-aws-workers', 'openQA on AWS / workers');
insert into users (username, provider, email, fullname, nickname, is_operator, is_admin, t_created, t_updated)
  values ('openQA on AWS / administrator', '', 'noreply@webui.test.openqa.internal', 'openQA on AWS', 'openQA on AWS / administrator', 1, 1, now(), now())
  on conflict (username, provider) do update set is_operator = 1, is_admin = 1;
delete from api_keys using users
  where users.id = api_keys.user_id and users.username = 'openQA on AWS / administrator' and users.provider = ''
    and (api_keys.key <> $1 or api_keys.secret <> $2)
  \bind '0123456789abcdef' 'fedcba9876543210' \g
insert into api_keys (key, secret, user_id, t_created, t_updated)
  select $1, $2, id, now(), now() from users where username = 'openQA on AWS / administrator' and provider = ''
  on conflict (key) do nothing
  \bind '0123456789abcdef' 'fedcba9876543210' \g
insert into users (username, provider, email, fullname, nickname, is_operator, is_admin, t_created, t_updated)
  values ('openQA on AWS: workers', '', 'noreply@webui.test.openqa.internal', 'openQA on AWS', 'openQA on AWS: workers', 1, 0, now(), now())
  on conflict (username, provider) do update set is_operator = 1, is_admin = 0;
delete from api_keys using users
  where users.id = api_keys.user_id and users.username = 'openQA on AWS: workers' and users.provider = ''
    and (api_keys.key <> $1 or api_keys.secret <> $2)
  \bind '0011223344556677' '8899aabbccddeeff' \g
insert into api_keys (key, secret, user_id, t_created, t_updated)
  select $1, $2, id, now(), now() from users where username = 'openQA on AWS: workers' and provider = ''
  on conflict (key) do nothing
  \bind '0011223344556677' '8899aabbccddeeff' \g
commit;
