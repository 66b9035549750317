"""The web UI's public side: load balancer, certificate and name."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_route53_targets as targets
from aws_cdk import aws_s3 as s3
from constructs import Construct

from settings import Domain, Environment

# Workers and browsers keep websockets open on which nothing may happen for minutes.
IDLE_TIMEOUT = Duration.seconds(3600)


class FrontDoor(Construct):
    """A load balancer that ends TLS and passes everything to one target group.

    Attributes:
        url: what people type, without a slash at its end.
        target_group: the ARN of the target group.
    """

    url: str
    target_group: str

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        vpc: ec2.IVpc,
        security_group: ec2.ISecurityGroup,
        logs: s3.IBucket,
        zone: route53.IHostedZone | None,
    ) -> None:
        """Makes it.

        Args:
            scope: the construct that it belongs to.
            id: its name there.
            environment: the settings.
            vpc: the VPC, whose public subnets it stands in.
            security_group: who may talk to it.
            logs: the bucket of its access logs.
            zone: the public hosted zone of the domain; None: there is no domain, and no HTTPS.
        """
        super().__init__(scope, id)
        balancer = elb.ApplicationLoadBalancer(
            self,
            "LoadBalancer",
            vpc=vpc,
            internet_facing=True,
            security_group=security_group,
            idle_timeout=IDLE_TIMEOUT,
            drop_invalid_header_fields=True,
            deletion_protection=not environment.disposable,
        )
        balancer.log_access_logs(logs, "load-balancer")
        group = elb.ApplicationTargetGroup(
            self,
            "WebUi",
            vpc=vpc,
            protocol=elb.ApplicationProtocol.HTTP,
            port=80,
            target_type=elb.TargetType.INSTANCE,
            deregistration_delay=Duration.seconds(30),
            health_check=elb.HealthCheck(
                path="/health",
                healthy_http_codes="200",
                interval=Duration.seconds(10),
                timeout=Duration.seconds(5),
                healthy_threshold_count=2,
                unhealthy_threshold_count=3,
            ),
        )
        self.target_group = group.target_group_arn
        if environment.domain is None or zone is None:
            self.url = f"http://{balancer.load_balancer_dns_name}"
            balancer.add_listener("Http", port=80, open=False, default_target_groups=[group])
        else:
            self.url = f"https://{environment.domain.name}"
            self._https(balancer, group, environment.domain, zone)

    def _https(
        self,
        balancer: elb.ApplicationLoadBalancer,
        group: elb.ApplicationTargetGroup,
        domain: Domain,
        zone: route53.IHostedZone,
    ) -> None:
        certificate = acm.Certificate(
            self,
            "Certificate",
            domain_name=domain.name,
            validation=acm.CertificateValidation.from_dns(zone),
        )
        balancer.add_listener(
            "Https",
            port=443,
            open=False,
            certificates=[certificate],
            ssl_policy=elb.SslPolicy.RECOMMENDED_TLS,
            default_target_groups=[group],
        )
        balancer.add_redirect(open=False)
        route53.ARecord(
            self,
            "Record",
            zone=zone,
            record_name=domain.name,
            target=route53.RecordTarget.from_alias(targets.LoadBalancerTarget(balancer)),
        )
